"""The chart's data: its table of topics, its schema, its values; rendered in integration/."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
import yaml

from support.deployment import CHART, DEPLOY, ROLES, RULES, VALUES
from taskmill._version import __version__
from taskmill.cli.main import COMMANDS
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import RESERVED
from taskmill.runtime.topic_table import (
    OF_PEOPLE,
    OF_SCHEDULES,
    Kind,
    people_spec,
    retry_specs,
    schedule_specs,
    topic_specs,
)

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text("utf-8"))
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))


def merged(values: dict[str, Any], onto: dict[str, Any] = DEFAULTS) -> dict[str, Any]:
    """As Helm lays values over the chart's own."""
    out = dict(onto)
    for key, value in values.items():
        below = out.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        out[key] = merged(value, below) if both else value
    return out


def refusal(values: dict[str, Any]) -> str:
    """What the schema says to `values` over the least that has to be given; "" where it is well."""
    least = {"app": "shop:app", "kafka": {"bootstrapServers": "kafka:9092"}}
    whole = merged(values, merged(least))
    errors = list(jsonschema.Draft7Validator(SCHEMA).iter_errors(whole))
    return "; ".join(error.message for error in errors)


def test_what_is_generated_is_current() -> None:
    """`deploy/generate.py` was run after what it reads was changed. (Manifests: integration/.)"""
    command = [sys.executable, "-P", str(DEPLOY / "generate.py"), "--check"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": "/nonexistent"}
    )
    assert done.returncode == 0, f"run deploy/generate.py: {done.stdout}{done.stderr}"


def test_topics_are_those_of_the_table() -> None:
    rows = json.loads((CHART / "files" / "topics.json").read_text("utf-8"))
    settings = Settings(prefix="p", partitions=24)
    tiers = list(settings.retry_tiers)
    others = {Kind.RETRY, *OF_SCHEDULES, *OF_PEOPLE}
    specs = [
        *topic_specs(settings, "mail", [kind for kind in Kind if kind not in others]),
        *retry_specs(settings, "mail", tiers),
        *schedule_specs(settings),
        *(people_spec(settings, kind) for kind in OF_PEOPLE),
    ]
    made = {}
    for row in rows:
        for tier in tiers:
            words = {"prefix": "p", "queue": "mail", "tier": tier}
            made[row["name"].format(**words)] = (row["partitions"] or 24, row["config"])
    assert made == {spec.name: (spec.partitions, dict(spec.configs)) for spec in specs}


def test_other_settings_make_another_table_that_the_schema_takes() -> None:
    command = [sys.executable, "-P", str(DEPLOY / "generate.py"), "--topics"]
    env = {"TASKMILL_DEDUP_WINDOW_MS": "3600000", "TASKMILL_PREFIX": "shop"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    table = json.loads(done.stdout)
    by_name = {row["name"]: row["config"] for row in table}
    assert by_name["{prefix}.state.{queue}"]["retention.ms"] == "3600000"
    assert refusal({"strimzi": {"topics": {"table": table}}}) == ""


def test_wrong_use_of_the_generator_is_told() -> None:
    command = [sys.executable, "-P", str(DEPLOY / "generate.py"), "--cheque"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        ["--cheque: use no argument, --check or --topics"],
    )


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["version"] == chart["appVersion"] == __version__


@pytest.mark.parametrize("path", VALUES, ids=lambda p: p.stem)
def test_a_value_set_is_what_the_schema_takes(path: Any) -> None:
    values = yaml.safe_load(path.read_text("utf-8"))
    whole = merged(values)
    assert [e.message for e in jsonschema.Draft7Validator(SCHEMA).iter_errors(whole)] == []


def test_there_are_four_value_sets() -> None:
    names = {path.stem.removesuffix("-values") for path in VALUES}
    assert names == {"minimal", "production", "keda-strimzi", "pod-per-partition"}


def test_every_object_of_ours_is_closed() -> None:
    def walk(schema: dict[str, Any], at: str) -> None:
        if "properties" in schema:
            assert schema.get("additionalProperties") is False, at
            for name, below in schema["properties"].items():
                walk(below, f"{at}.{name}")

    walk(SCHEMA, "values")
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_every_value_has_a_default_and_a_word_in_the_schema() -> None:
    def names(schema: dict[str, Any], values: Any, at: str) -> None:
        properties = schema.get("properties", {})
        if properties and at != "values.settings":
            assert set(properties) - {"global"} == set(values), at
            for name, below in properties.items():
                if name != "global":
                    names(below, values[name], f"{at}.{name}")

    names(SCHEMA, DEFAULTS, "values")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"worker": {"replica": 3}}, "'replica' was unexpected"),
        ({"settings": {"dedup_windw_ms": 1}}, "'dedup_windw_ms' was unexpected"),
        ({"settings": {"store_url": "postgresql://u:p@h/d"}}, "'store_url' was unexpected"),
        ({"kafka": {"settings": {"acks": "1"}}}, "'acks' should not be valid"),
        ({"kafka": {"settings": {"sasl.password": "x"}}}, "'sasl.password' should not be valid"),
        ({"kafka": {"bootstrapServers": "kafka"}}, "'kafka' does not match"),
        ({"app": "shop"}, "'shop' does not match"),
        ({"topics": {"partitions": 0}}, "0 is less than the minimum of 1"),
        ({"topics": {"queues": ["a.b"]}}, "'a.b' does not match"),
        ({"autoscaling": {"kind": "kedda"}}, "'kedda' is not one of"),
        ({"worker": {"env": {"TASKMILL_PREFIX": "x"}}}, "'TASKMILL_PREFIX' should not be valid"),
        ({"worker": {"persistence": {"accessMode": "ReadWriteMany"}}}, "is not one of"),
        ({"strimzi": {"topics": {"retryTiers": ["5 s"]}}}, "'5 s' does not match"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:40],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], says: str) -> None:
    assert says in refusal(values)


def test_what_has_to_be_given_is_asked_for() -> None:
    errors = list(jsonschema.Draft7Validator(SCHEMA).iter_errors(DEFAULTS))
    assert sorted(".".join(map(str, e.path)) for e in errors) == ["app", "kafka.bootstrapServers"]


def test_every_setting_is_a_value_comes_from_a_secret_or_is_the_charts_own() -> None:
    named = set(SCHEMA["properties"]["settings"]["properties"])
    templates = "".join(p.read_text("utf-8") for p in (CHART / "templates").iterdir())
    text = templates + (CHART / "values.yaml").read_text("utf-8")
    set_by_chart = {name.lower() for name in re.findall(r"TASKMILL_([A-Z_]+?)(?:__|\b)", text)}
    of_secrets = {"store_url", "outcomes_url", "api_token", "schema_registry_url"}
    assert set(Settings.model_fields) == named | set_by_chart & set(Settings.model_fields) | (
        of_secrets & set(Settings.model_fields)
    )
    assert not named & of_secrets


def test_settings_that_promises_rest_on_cannot_be_given() -> None:
    for name in (*RESERVED, "bootstrap.servers"):
        assert "should not be valid" in refusal({"kafka": {"settings": {name: "x"}}})


def test_the_roles_are_commands() -> None:
    """Those that there are: a role comes into the chart before its command, or with it."""
    for role in {*ROLES, "topics"} & set(COMMANDS):
        text = (CHART / "templates" / f"{role}.yaml").read_text("utf-8")
        assert f'list "{role}"' in text


def test_rules_and_dashboards_are_copies() -> None:
    source = DEPLOY / "alerts" / RULES.name
    if source.exists():
        assert RULES.read_text("utf-8") == source.read_text("utf-8")
    boards = {p.name: p.read_text("utf-8") for p in (DEPLOY / "grafana" / "dashboards").glob("*")}
    copies = {p.name: p.read_text("utf-8") for p in (CHART / "files" / "dashboards").glob("*")}
    assert copies == boards
