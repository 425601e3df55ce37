"""The chart through Helm: linted, rendered with each value set, and valid for Kubernetes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.deployment import (
    CHART,
    DEPLOY,
    HOW_HELM,
    KUBE_VERSION,
    RULES,
    VALUES,
    helm,
    named,
    pods,
    program,
    rendered,
    template,
)
from taskmill.runtime.config import Settings

pytestmark = pytest.mark.tools

BY_NAME = {path.stem.removesuffix("-values"): path for path in VALUES}
#: Kinds of operators, whose shape Kubernetes itself does not know: what each needs below `spec`.
OF_OPERATORS = {
    "ScaledObject": ("keda.sh/v1alpha1", {"scaleTargetRef", "triggers", "maxReplicaCount"}),
    "TriggerAuthentication": ("keda.sh/v1alpha1", {"secretTargetRef"}),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}),
    "KafkaTopic": ("kafka.strimzi.io/v1", {"topicName", "partitions", "replicas", "config"}),
    "KafkaUser": ("kafka.strimzi.io/v1", {"authentication", "authorization"}),
}
each_set = pytest.mark.parametrize("name", sorted(BY_NAME))


@pytest.fixture(scope="module")
def objects() -> dict[str, list[dict[str, Any]]]:
    """What each value set renders to."""
    return {name: rendered(path) for name, path in BY_NAME.items()}


def changed(folder: Path, **values: Any) -> Path:
    """A file of the least values and these."""
    least = {"app": "shop:app", "kafka": {"bootstrapServers": "kafka:9092"}}
    (folder / "values.yaml").write_text(yaml.safe_dump({**least, **values}), encoding="utf-8")
    return folder / "values.yaml"


def settings_map(found: list[dict[str, Any]]) -> dict[str, str]:
    """The one ConfigMap that is no dashboard's."""
    maps = [one["data"] for one in named(found, "ConfigMap").values()]
    (data,) = (data for data in maps if not any(name.endswith(".json") for name in data))
    return dict(data)


@each_set
def test_helm_finds_nothing_to_complain_of(name: str) -> None:
    rules = [] if RULES.exists() else ["--set", "monitoring.prometheusRule.enabled=false"]
    values = ["--values", str(BY_NAME[name]), "--kube-version", KUBE_VERSION]
    out = helm("lint", "--strict", str(CHART), *values, *rules)
    assert "0 chart(s) failed" in out


@each_set
def test_everything_is_valid_for_kubernetes(
    name: str, objects: dict[str, list[dict[str, Any]]]
) -> None:
    seen = set()
    for one in objects[name]:
        kind = one["kind"]
        identity = (kind, one["metadata"].get("namespace"), one["metadata"]["name"])
        assert identity not in seen, identity
        seen.add(identity)
        assert len(one["metadata"]["name"]) <= 253
        if kind in OF_OPERATORS:
            version, needed = OF_OPERATORS[kind]
            assert one["apiVersion"] == version
            assert needed <= set(one["spec"])
        else:
            kubernetes_validate.validate(one, KUBE_VERSION, strict=True)


def test_the_plain_manifests_are_the_chart_of_today_and_valid() -> None:
    path = Path(program("helm", HOW_HELM)).parent
    text = (DEPLOY / "manifests" / "taskmill.yaml").read_text("utf-8")
    for one in filter(None, yaml.safe_load_all(text)):
        kubernetes_validate.validate(one, KUBE_VERSION, strict=True)
        assert one["metadata"]["namespace"] == "taskmill"
    command = [sys.executable, "-P", str(DEPLOY / "generate.py"), "--check"]
    env = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stdout) == (0, ""), f"run deploy/generate.py: {done.stderr}"


@each_set
def test_every_pod_is_restricted(name: str, objects: dict[str, list[dict[str, Any]]]) -> None:
    found = list(pods(objects[name]))
    assert {role for role, _ in found} >= {"worker", "scheduler", "console"}
    for role, pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        # Else a Service's address comes in under a setting's name.
        assert pod["enableServiceLinks"] is False
        assert not pod.get("hostNetwork")
        writable = {v["name"] for v in pod["volumes"] if "secret" not in v and "projected" not in v}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            assert {mounts[v] for v in writable if v in mounts} <= {"/tmp", "/var/lib/taskmill"}
            if role != "topics":
                probes = ("livenessProbe", "readinessProbe", "startupProbe")
                paths = [container[probe]["httpGet"]["path"] for probe in probes]
                assert paths == ["/healthz", "/readyz", "/healthz"]


@each_set
def test_a_worker_has_time_to_drain_and_keeps_its_slot(
    name: str, objects: dict[str, list[dict[str, Any]]]
) -> None:
    (worker,) = named(objects[name], "StatefulSet").values()
    pod = worker["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    args = container["args"]
    drain_s = int(args[args.index("--drain-timeout") + 1].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] == drain_s + 30
    # The node's ID lies in the state directory: on a volume that is the pod's, wherever it runs.
    env = {one["name"]: one.get("value") for one in container["env"]}
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    (claim,) = worker["spec"]["volumeClaimTemplates"]
    assert mounts[str(env["TASKMILL_STATE_DIR"])] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert worker["spec"]["podManagementPolicy"] == "Parallel"
    assert worker["spec"]["serviceName"] in named(objects[name], "Service")


@each_set
def test_services_policies_and_budgets_select_pods_that_there_are(
    name: str, objects: dict[str, list[dict[str, Any]]]
) -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in objects[name]
        if one["kind"] in {"StatefulSet", "Deployment", "Job"}
    ]
    for kind in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
        assert named(objects[name], kind)
        for one in named(objects[name], kind).values():
            spec = one["spec"]
            selector = spec.get("podSelector", spec.get("selector"))
            selector = selector.get("matchLabels", selector)
            is_for_topics = selector["app.kubernetes.io/component"] == "topics"
            met = [of_pod for of_pod in labels if selector.items() <= of_pod.items()]
            assert len(met) == 1 or (is_for_topics and not met), one["metadata"]["name"]
    budgets = named(objects[name], "PodDisruptionBudget")
    assert {b.rpartition("-")[2] for b in budgets} == {"worker", "scheduler", "console"}


def test_every_variable_is_a_setting_and_reads_back_as_it_was_written(
    objects: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = settings_map(objects["production"])
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.dedup_window_ms == 1_382_400_000
    assert settings.enqueue_timeout_s == 2.5
    assert settings.partitions == 24
    assert settings.kafka["sasl.mechanism"] == "SCRAM-SHA-512"
    assert settings.kafka["ssl.ca.location"] == "/etc/taskmill/kafka/ca.crt"


def test_autoscaling_stops_at_the_partition_count(
    objects: dict[str, list[dict[str, Any]]],
) -> None:
    (hpa,) = named(objects["production"], "HorizontalPodAutoscaler").values()
    assert hpa["spec"]["maxReplicas"] == 24  # 48 are asked for
    (keda,) = named(objects["keda-strimzi"], "ScaledObject").values()
    assert keda["spec"]["maxReplicaCount"] == 12  # 100 are
    for name in ("production", "keda-strimzi"):
        (worker,) = named(objects[name], "StatefulSet").values()
        assert "replicas" not in worker["spec"]  # the scaler's to say
    groups = [trigger["metadata"] for trigger in keda["spec"]["triggers"]]
    assert [(g["consumerGroup"], g["topic"]) for g in groups] == [
        ("taskmill.worker.default", "taskmill.tasks.default"),
        ("taskmill.worker.Mail_out", "taskmill.tasks.Mail_out"),
    ]
    assert all(isinstance(v, str) for g in groups for v in g.values())
    (access,) = named(objects["keda-strimzi"], "TriggerAuthentication").values()
    assert keda["spec"]["triggers"][0]["authenticationRef"] == {"name": access["metadata"]["name"]}


def test_pod_per_partition_makes_as_many_pods(objects: dict[str, list[dict[str, Any]]]) -> None:
    (worker,) = named(objects["pod-per-partition"], "StatefulSet").values()
    assert worker["spec"]["replicas"] == 12


def test_a_strimzi_user_may_do_what_clients_do_and_pods_have_its_certificate(
    objects: dict[str, list[dict[str, Any]]],
) -> None:
    found = objects["keda-strimzi"]
    (user,) = named(found, "KafkaUser").values()
    acls = user["spec"]["authorization"]["acls"]
    may = {(a["resource"]["type"], a["resource"].get("name")): set(a["operations"]) for a in acls}
    assert may["topic", "taskmill."] >= {"Read", "Write", "Describe", "Delete"}
    assert may["group", "taskmill."] >= {"Read", "Describe"}
    assert may["transactionalId", "taskmill."] == {"Write", "Describe"}
    assert not any("All" in operations for operations in may.values())
    config = settings_map(found)
    for role, pod in pods(found):
        (files,) = (v["projected"]["sources"] for v in pod["volumes"] if "projected" in v)
        paths = {item["path"] for source in files for item in source["secret"]["items"]}
        for name in ("SSL_CA", "SSL_CERTIFICATE", "SSL_KEY"):
            path = Path(config[f"TASKMILL_KAFKA__{name}_LOCATION"])
            assert path.name in paths, role
            assert {"mountPath": str(path.parent), "name": "kafka-files", "readOnly": True} in (
                pod["containers"][0]["volumeMounts"]
            )


def test_the_topics_job_brings_its_settings_along(
    objects: dict[str, list[dict[str, Any]]],
) -> None:
    """A hook before the installation finds none of the release's own objects."""
    (job,) = named(objects["production"], "Job").values()
    assert "pre-install" in job["metadata"]["annotations"]["helm.sh/hook"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["topics", "create", "-q", "default", "-q", "mail"]
    assert not any("configMapRef" in one for one in container["envFrom"])
    assert pod["serviceAccountName"] == "default"
    config = settings_map(objects["production"])
    env = {one["name"]: one["value"] for one in container["env"]}
    assert config.items() <= env.items()
    assert not named(objects["keda-strimzi"], "Job")  # topics are Strimzi's there


def test_two_consoles_want_postgresql_and_one_keeps_its_sqlite_on_a_volume(
    objects: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    console = named(objects["minimal"], "Deployment")["release-taskmill-console"]
    assert console["spec"]["strategy"] == {"type": "Recreate"}
    claims = [
        v.get("persistentVolumeClaim") for v in console["spec"]["template"]["spec"]["volumes"]
    ]
    assert {"claimName": "release-taskmill-console"} in claims
    two = named(objects["production"], "Deployment")["release-taskmill-console"]
    env = {e["name"]: e for e in two["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["TASKMILL_STORE_URL"]["valueFrom"]["secretKeyRef"]["name"] == "shop-console"
    refused = helm(*template(changed(tmp_path, console={"replicas": 2})), fails=True)
    assert "console.replicas: more than one need PostgreSQL" in refused


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"worker": {"replica": 3}}, "replica"),
        (
            {"worker": {"podPerPartition": True}, "autoscaling": {"kind": "keda"}},
            "worker.podPerPartition fixes the count of pods",
        ),
        (
            {"autoscaling": {"kind": "hpa", "minReplicas": 13}},
            "autoscaling.minReplicas: 13 is more than the 12 pods",
        ),
        ({"strimzi": {"topics": {"enabled": True}}}, "strimzi.cluster: name the Kafka resource"),
        (
            {
                "strimzi": {"cluster": "c", "topics": {"enabled": True}},
                "settings": {"dedup_window_ms": 3_600_000},
            },
            "settings.dedup_window_ms changes what topics must be",
        ),
        (
            {
                "strimzi": {"cluster": "c", "topics": {"enabled": True}},
                "settings": {"retry_tiers": "5s,1m"},
            },
            "strimzi.topics.retryTiers",
        ),
    ],
    ids=["misspelt", "pods", "minimum", "cluster", "window", "tiers"],
)
def test_what_does_not_fit_is_refused_in_words(
    values: dict[str, Any], says: str, tmp_path: Path
) -> None:
    assert says in helm(*template(changed(tmp_path, **values)), fails=True)


def test_parts_can_be_left_out(tmp_path: Path) -> None:
    parts = {
        "scheduler": {"enabled": False},
        "console": {"enabled": False},
        "topics": {"create": False},
        "networkPolicy": {"enabled": False},
        "worker": {"persistence": {"enabled": False}},
        "serviceAccount": {"create": False},
    }
    found = rendered(changed(tmp_path, **parts))
    kinds = sorted(one["kind"] for one in found)
    assert kinds == ["ConfigMap", "PodDisruptionBudget", "Service", "StatefulSet"]
    for one in found:
        kubernetes_validate.validate(one, KUBE_VERSION, strict=True)


def test_the_notes_say_what_to_look_at(tmp_path: Path) -> None:
    # Told by an installation alone, which needs a cluster: here, by a template that includes them.
    shutil.copytree(CHART, tmp_path / "chart")
    quoted = '{{ include (print $.Template.BasePath "/NOTES.txt") . | toJson }}'
    (tmp_path / "chart" / "templates" / "notes.yaml").write_text(f"notes: {quoted}\n")
    values = ["--values", str(BY_NAME["pod-per-partition"]), "--kube-version", KUBE_VERSION]
    only = ["--show-only", "templates/notes.yaml"]
    notes = yaml.safe_load(helm("template", "t", str(tmp_path / "chart"), *values, *only))["notes"]
    assert "rollout status statefulset/t-taskmill-worker" in notes
    assert "networkPolicy.workerEgress" in notes
