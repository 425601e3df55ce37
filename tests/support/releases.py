"""An older taskmill, built from this repository's history into an environment of its own."""

from __future__ import annotations

import io
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class NoHistory(Exception):
    """The commit is not in this clone."""


def first_commit(version: str) -> str:
    """The commit that first carried `version` as one that people use: with its own section in the
    changelog. (The number itself is in the very first commit, of a broker and no worker.)"""
    log = _git("log", "--reverse", "--format=%H", f"-S## {version}\n", "--", "CHANGELOG.md")
    commits = log.decode().split()
    # A shallow clone's oldest commit seems to have brought everything that is in it.
    if not commits or f'"{version}"' not in _git_file(commits[0], "taskmill/_version.py"):
        raise NoHistory(
            f"the commit that first carried version {version} is not in this clone: "
            "git fetch --unshallow"
        )
    return commits[0]


def build(version: str, folder: Path) -> Path:
    """Build the wheel of `version` and install it, with our own dependencies, below `folder`; the
    interpreter that runs it. Raises NoHistory."""
    source = folder / "source"
    with tarfile.open(fileobj=io.BytesIO(_git("archive", first_commit(version)))) as archive:
        archive.extractall(source, filter="data")
    wheels = folder / "wheels"
    _pip("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, source)
    (wheel,) = wheels.glob(f"taskmill-{version}-*.whl")
    home = folder / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    _pip("--python", python, "install", "-q", "--no-deps", wheel)
    # Its dependencies are found here, behind what it has of its own: itself.
    own = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    Path(own, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True, cwd=ROOT.parent)


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        raise NoHistory(f"git {words[0]} in {ROOT}: {done.stderr.decode().strip()}")
    return done.stdout


def _git_file(commit: str, path: str) -> str:
    return _git("show", f"{commit}:{path}").decode()
