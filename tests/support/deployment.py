"""What lies in deploy/, read as its tools read it, and those tools."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
ROLES = ("worker", "scheduler", "console")
#: What brings Helm, for those that have Go.
HOW_HELM = "go install helm.sh/helm/v3/cmd/helm@latest, or your system's way"
#: Comes with the metrics' alerts; the chart renders none without it.
RULES = CHART / "files" / "taskmill.rules.yml"
#: Helm has its own idea of the cluster's version, where there is none to ask.
KUBE_VERSION = "1.33.0"


def compose_file() -> dict[str, Any]:
    """docker-compose.yml, variables as they are written."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return found


def program(name: str, how: str) -> str:
    """Where `name` is; the test fails, and says `how` to get it, where it is nowhere."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path.home() / "go" / "bin")])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.fail(f"{name} is needed: {how}", pytrace=False)
    return found


def helm(*arguments: str, fails: bool = False) -> str:
    """What `helm ARGUMENTS` prints; of one that `fails`, its complaint."""
    command = program("helm", HOW_HELM)
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def rendered(values: Path, *options: str) -> list[dict[str, Any]]:
    """The objects that the chart makes of a file of values."""
    text = helm(*template(values), *options)
    return [one for one in yaml.safe_load_all(text) if one is not None]


def template(values: Path) -> list[str]:
    """The arguments for Helm to render the chart with `values`."""
    command = ["template", "release", str(CHART), "--namespace", "space", "--values", str(values)]
    rules = [] if RULES.exists() else ["--set", "monitoring.prometheusRule.enabled=false"]
    return [*command, "--kube-version", KUBE_VERSION, *rules]


def pods(objects: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Role and pod specification of each workload."""
    for one in objects:
        if one["kind"] in {"StatefulSet", "Deployment", "Job"}:
            pod = one["spec"]["template"]
            yield pod["metadata"]["labels"]["app.kubernetes.io/component"], pod["spec"]


def named(objects: Sequence[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


class Step(NamedTuple):
    """An instruction of the Dockerfile: of which stage, and its words."""

    stage: int
    what: str
    text: str

    @property
    def words(self) -> list[str]:
        """Of ENV, COPY and the like; options (`--from=…`) too."""
        if self.text.startswith("["):
            exact: list[str] = json.loads(self.text)
            return exact
        return shlex.split(self.text)


def dockerfile() -> list[Step]:
    """The Dockerfile's instructions, lines joined, comments gone, ARGs of the top put in."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    steps, arguments, stage = [], {}, -1
    for line in joined.splitlines():
        what, _, rest = line.partition(" ")
        if what == "ARG" and stage < 0:
            name, _, value = rest.partition("=")
            arguments[name] = value
            continue
        if what == "FROM":
            stage += 1
            rest = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], rest)
        steps.append(Step(stage, what, rest.strip()))
    return steps


def environment_of_image() -> dict[str, str]:
    """What ENV sets in the image."""
    last = max(step.stage for step in dockerfile())
    words = [w for s in dockerfile() if s.what == "ENV" and s.stage == last for w in s.words]
    return dict(word.split("=", 1) for word in words)
