"""The Dockerfile's instructions carried out without an engine, below a folder instead of `/`.

COPY copies, RUN runs its very words by `sh`, in an environment that holds nothing but what the
Dockerfile says (and how this machine's pip reaches its packages). Paths of the image's own are put
below the folder; both stages share it, so that what the second copies from the first is there.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.deployment import ROOT, Step, dockerfile, environment_of_image

#: Where the image has files of its own; all else is the base image's.
_OURS = re.compile(r"(?<![\w./-])/(?=(?:opt/taskmill|src|app|var/lib/taskmill)\b)")
#: Whom the image runs as.
UID = 10001


def base_python() -> Path:
    """A Python to build on: one that any user can run, where there is one, else this one's."""
    candidates = [Path("/usr/bin/python3"), Path("/usr/local/bin/python3")]
    for path in candidates:
        asked = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"
        if path.exists() and subprocess.run([path, "-c", asked], check=False).returncode == 0:
            return path.resolve()
    return Path(sys.executable).resolve()


def may_be_run_by_all(path: Path) -> bool:
    """Whether every folder above `path` lets others through."""
    return all(one.stat().st_mode & stat.S_IXOTH for one in path.resolve().parents)


class Built:
    """The image, as a folder."""

    def __init__(self, root: Path) -> None:
        """`root`: an empty folder. Raises CalledProcessError where a step fails."""
        self.root = root
        root.chmod(0o755)
        self._python = base_python()
        self._folder = root
        self._base = root / "base"
        self._base.mkdir()
        (self._base / "python").symlink_to(self._python)
        #: The instructions that were carried out, in order.
        self.done: list[Step] = []
        for step in dockerfile():
            self._carry_out(step)

    @property
    def uid(self) -> int | None:
        """The user to run as; None where this one cannot become it, or it could not run Python."""
        able = os.getuid() == 0 and may_be_run_by_all(self._python) and may_be_run_by_all(self.root)
        return UID if able else None

    def path(self, text: str) -> str:
        """`text`, the image's paths in it put below the folder."""
        return _OURS.sub(f"{self.root}/", text)

    def environment(self) -> dict[str, str]:
        """What a container of the image starts with, and nothing else."""
        env = {name: self.path(value) for name, value in environment_of_image().items()}
        return {**env, "TMPDIR": str(self._made("tmp", 0o777))}

    def run(
        self, *command: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What a container would run, to its end, as the image's user where that is possible."""
        return subprocess.run(
            command,
            cwd=self.root / "app",
            env={**self.environment(), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            user=self.uid,
            group=self.uid,
            extra_groups=None if self.uid is None else [],
        )

    def _made(self, name: str, mode: int) -> Path:
        path = self.root / name
        path.mkdir(exist_ok=True)
        path.chmod(mode)
        return path

    def _carry_out(self, step: Step) -> None:
        if step.what == "FROM":
            # The next stage has what it copies from this one, and no more.
            shutil.rmtree(self.root / "src", ignore_errors=True)
            self._folder = self.root
            return
        if step.what == "WORKDIR":
            self._folder = Path(self.path(step.text))
            self._folder.mkdir(parents=True, exist_ok=True)
        elif step.what == "COPY":
            self._copy(step.words)
        elif step.what == "RUN":
            self._run(step.text)
        else:
            assert step.what in {
                *("ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD")
            }, step
        self.done.append(step)

    def _copy(self, words: list[str]) -> None:
        if words[0].startswith("--from="):
            assert words[1] == words[2], "a copy to another place is not followed"
            assert Path(self.path(words[1])).exists()
            return
        *sources, target = words
        into = self._folder / self.path(target)
        for source in sources:
            path = ROOT / source
            end = into / path.name if target.endswith("/") else into
            end.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, end, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, end)

    def _run(self, text: str) -> None:
        if os.getuid() != 0:  # whose files they are is what root alone can say
            text = re.sub(r"\bchown \S+ ", "ls -d ", text)
        # How this machine's pip reaches its packages is no part of the image.
        env = {n: v for n, v in os.environ.items() if n.startswith(("PIP_", "SSL_", "HTTP"))}
        env |= {n: v for n, v in os.environ.items() if n.lower().endswith("_proxy")}
        env |= {"PATH": f"{self._base}:/usr/bin:/bin", "HOME": str(self._made("root", 0o700))}
        subprocess.run(
            ["sh", "-ec", self.path(text)], cwd=self._folder, env=env, check=True, umask=0o022
        )
