"""Writes what in deploy/ follows from the code, so that neither is edited without the other.

`deploy/generate.py` writes Grafana's dashboards (from deploy/dashboards/), the chart's table of
topics, its list of settings, its copies of the alert rules and dashboards, and, with Helm,
deploy/manifests/. `--check` writes nothing and names what is out of date (exit code 1). `--topics`
prints the table of topics that the settings at hand (`TASKMILL_…`, `taskmill.toml`) make, for the
chart's `strimzi.topics.table`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taskmill.runtime.config import Settings, load_settings
from taskmill.runtime.kafka import RESERVED
from taskmill.runtime.topic_table import (
    OF_PEOPLE,
    OF_SCHEDULES,
    Kind,
    TopicSpec,
    people_spec,
    retry_specs,
    schedule_specs,
    topic_specs,
)

HERE = Path(__file__).resolve().parent
CHART = HERE / "chart"
MANIFESTS = HERE / "manifests"

#: Helm has its own idea of the cluster's version, where there is none to ask.
KUBE_VERSION = "1.33.0"

#: Settings that the chart sets by values of its own, or that a pod has no use for.
NOT_IN_SETTINGS = {
    "bootstrap_servers",
    "prefix",
    "state_dir",
    "partitions",
    "kafka",
    "metrics_port",
    "console_host",
    "console_port",
}
#: Settings that may hold a password: only in a Secret.
SECRET_SETTINGS = {"store_url", "outcomes_url", "api_token", "schema_registry_url"}

#: One queue's kinds; those of schedules and retries have names of their own making.
_OF_A_QUEUE = [k for k in Kind if k not in {Kind.RETRY, *OF_SCHEDULES, *OF_PEOPLE}]


def topic_table(settings: Settings) -> list[dict[str, Any]]:
    """Every topic, `{queue}` and `{tier}` where its name varies; partitions 0: the queue's."""
    few = settings.model_copy(update={"partitions": 7})
    many = settings.model_copy(update={"partitions": 11})
    rows = []
    for one, other in zip(_specs(few), _specs(many), strict=True):
        name = one.name.replace(settings.prefix, "{prefix}", 1)
        name = name.replace("QUEUE", "{queue}").replace(".777s", ".{tier}")
        same = one.partitions == other.partitions
        rows.append(
            {
                "name": name,
                "partitions": one.partitions if same else 0,
                "config": dict(sorted(one.configs.items())),
            }
        )
    return rows


def _specs(settings: Settings) -> list[TopicSpec]:
    return [
        *topic_specs(settings, "QUEUE", _OF_A_QUEUE),
        *retry_specs(settings, "QUEUE", ["777s"]),
        *schedule_specs(settings),
        *(people_spec(settings, kind) for kind in OF_PEOPLE),
    ]


def defaults() -> Settings:
    """The settings as they are where nobody set any."""
    return Settings.model_construct()


def settings_schema() -> dict[str, Any]:
    """What `settings` may hold: every setting that neither the chart nor a Secret gives."""
    found = {}
    properties = Settings.model_json_schema()["properties"]
    for name, about in sorted(properties.items()):
        if name in NOT_IN_SETTINGS | SECRET_SETTINGS:
            continue
        found[name] = {
            "type": ["string", "number", "boolean"],
            "description": about["description"],
        }
    return found


def schema() -> dict[str, Any]:
    """values.schema.json with its lists of names as the code has them."""
    whole: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    whole["properties"]["settings"]["properties"] = settings_schema()
    kafka = whole["properties"]["kafka"]["properties"]["settings"]
    ours = sorted({*RESERVED, "bootstrap.servers", "metadata.broker.list"})
    kafka["propertyNames"] = {
        "pattern": "^[a-z][a-z0-9._]*$",
        "not": {"anyOf": [{"enum": ours}, {"pattern": "password|secret|\\.pem$"}]},
    }
    return whole


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def files() -> Iterator[tuple[Path, str]]:
    """What is generated without Helm: path and text."""
    yield CHART / "files" / "topics.json", _json(topic_table(defaults()))
    yield CHART / "values.schema.json", _json(schema())
    rules = HERE / "alerts" / "taskmill.rules.yml"
    if rules.exists():
        yield CHART / "files" / rules.name, rules.read_text("utf-8")
    sys.path.append(str(HERE))  # `python -P` leaves it out
    from dashboards import files as boards

    for name, text in boards():
        yield HERE / "grafana" / "dashboards" / name, text
        yield CHART / "files" / "dashboards" / name, text


def manifests(helm: str) -> Iterator[tuple[Path, str]]:
    """The chart rendered for those who have no Helm. Ends with Helm's own words where it fails."""
    command = [helm, "template", "taskmill", str(CHART), "--namespace", "taskmill"]
    command += ["--kube-version", KUBE_VERSION, "--values", str(MANIFESTS / "values.yaml")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(1)
    head = (
        "# Rendered from deploy/chart with deploy/manifests/values.yaml by deploy/generate.py:\n"
        "# change those. docs/deploy.md says what to set before `kubectl apply`.\n"
    )
    yield MANIFESTS / "taskmill.yaml", head + done.stdout


def main(arguments: list[str]) -> int:
    """Write, check or print; the exit code."""
    if arguments == ["--topics"]:
        print(_json(topic_table(load_settings())), end="")
        return 0
    if arguments not in ([], ["--check"]):
        print(f"{' '.join(arguments)}: use no argument, --check or --topics", file=sys.stderr)
        return 2
    stale = list(_brought_up_to_date(files(), bool(arguments)))
    helm = shutil.which("helm")
    if helm is None:
        print("no helm on PATH: deploy/manifests are left as they are", file=sys.stderr)
    else:
        stale += _brought_up_to_date(manifests(helm), bool(arguments))
    for path in stale:
        print(path.relative_to(HERE.parent))
    return 1 if stale and arguments else 0


def _brought_up_to_date(wanted: Iterator[tuple[Path, str]], only_check: bool) -> Iterator[Path]:
    for path, text in wanted:
        if path.exists() and path.read_text("utf-8") == text:
            continue
        if not only_check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        yield path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
