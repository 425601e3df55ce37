"""The local broker comes up, keeps its data, is found, and ends, whatever the disk says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from support.brokers import PrivateBroker, java_only
from taskmill.runtime.broker_record import HOST, Cluster, Node, runs_as
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.local_broker import LocalBroker, broker_home, discover
from taskmill.runtime.topics import Kind, Topics, ensure

pytestmark = pytest.mark.kafka

Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def taskmill(tmp_path: Path) -> Iterator[Command]:
    """Starts `taskmill …` on a state directory of the test's own; no broker is left behind."""
    env = {**java_only(), "TASKMILL_STATE_DIR": str(tmp_path)}

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "taskmill", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)

    yield start
    LocalBroker(tmp_path, env=env).stop()


def ended(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that ends by itself."""
    out, err = command.communicate(timeout=100)
    return command.returncode, out, err


def put(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0


def first_value(bootstrap: str, topic: str) -> bytes | None:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert message.error() is None
    return message.value()


def test_two_ups_start_one_broker_and_its_data_outlive_down_and_up(
    taskmill: Command, tmp_path: Path
) -> None:
    results = [ended(command) for command in [taskmill("broker", "up") for _ in range(2)]]
    assert [code for code, _, _ in results] == [0, 0]
    (address,) = {out.strip() for _, out, _ in results}
    assert sorted("already running" in err for _, _, err in results) == [False, True]
    assert discover(tmp_path) == address

    settings = Settings(bootstrap_servers=address, partitions=1)
    ensure(settings, "default", [Kind.TASKS])
    tasks = Topics(settings.prefix, "default").tasks
    put(address, tasks, b"kept")
    code, out, _ = ended(taskmill("broker", "status", "--json"))
    told = json.loads(out)
    assert (code, told["running"], told["answers"], told["via"]) == (0, True, True, "java")
    (pid,) = told["pids"]
    broker_settings = configs_of_broker(address)
    for name, value in {
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "5000",
        "group.consumer.session.timeout.ms": "6000",
        "group.consumer.heartbeat.interval.ms": "1000",
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
    }.items():
        assert broker_settings[name] == value

    assert ended(taskmill("broker", "down"))[0] == 0
    assert not runs_as(pid, broker_home(tmp_path) / "node-1" / "server.properties")
    assert discover(tmp_path) is None
    code, out, _ = ended(taskmill("broker", "status", "--json"))
    assert (code, json.loads(out)["running"], json.loads(out)["stale"]) == (3, False, False)

    code, out, _ = ended(taskmill("broker", "up"))
    assert (code, out.strip()) == (0, address)
    assert first_value(address, tasks) == b"kept"


def configs_of_broker(address: str) -> dict[str, str | None]:
    resource = ConfigResource(ConfigResource.Type.BROKER, "1")
    client = AdminClient({"bootstrap.servers": address})
    (answer,) = client.describe_configs([resource]).values()
    return {name: entry.value for name, entry in answer.result(timeout=10).items()}


def test_a_reused_pid_and_a_taken_port_do_not_stop_a_start(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        # As after a crash: the record names a pid that is another process's by now.
        node = Node(id=1, port=taken, controller_port=taken, pid=os.getpid())
        home = broker_home(tmp_path)
        Cluster(home, "tHHQhkXcQkq-0fz0hG2iRg", "java", (node,), started=True).save()
        broker = LocalBroker(tmp_path, env=java_only())
        assert broker.status().stale
        try:
            status = broker.start()
            assert status.started_now
            assert status.bootstrap != f"{HOST}:{taken}"
            assert status.pids != (os.getpid(),)
            assert discover(tmp_path) == status.bootstrap
        finally:
            assert broker.stop()


def test_a_killed_broker_is_told_as_stale_and_starts_again_with_what_was_acknowledged(
    private_broker: Callable[..., PrivateBroker],
) -> None:
    broker = private_broker()
    address = broker.bootstrap
    settings = Settings(bootstrap_servers=address, partitions=1)
    ensure(settings, "default", [Kind.TASKS])
    put(address, Topics(settings.prefix, "default").tasks, b"acknowledged")
    broker.kill()
    assert discover(broker.state_dir) is None
    assert LocalBroker(broker.state_dir).status().stale
    assert broker.start() == address
    assert first_value(address, Topics(settings.prefix, "default").tasks) == b"acknowledged"


def test_a_lone_broker_that_was_killed_is_fenced_before_it_starts_again(
    private_broker: Callable[..., PrivateBroker],
) -> None:
    """Else the markers of its open transactions are lost (docs/hanging.md)."""
    broker = private_broker()
    told = broker_home(broker.state_dir) / "node-1" / "fence.log"
    broker.restart()
    assert not told.exists()  # it had signed off
    broker.kill()
    broker.start()
    assert "Fencing broker 1" in told.read_text()
    # A start that was killed in the midst of it has left its controller running, with the data.
    broker.kill()
    (node,) = LocalBroker(broker.state_dir).status().logs
    properties = node.with_name("fence.properties")
    stand_in = ["bash", "-c", "read", "kafka.Kafka", properties]
    with subprocess.Popen(stand_in, stdin=subprocess.PIPE) as left:
        node.with_name("fence.pid").write_text(str(left.pid))
        broker.start()
        assert left.wait(10) == -signal.SIGKILL


def test_a_start_that_fails_shows_the_end_of_the_log_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    home = broker_home(tmp_path)
    cluster = Cluster(home, "tHHQhkXcQkq-0fz0hG2iRg", "java", (Node(1, 0, 0),))
    cluster.save()
    data = cluster.directory(cluster.nodes[0]) / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\ncluster.id=another\nnode.id=7\n")
    broker = LocalBroker(tmp_path, env=java_only())
    with pytest.raises(TaskmillError) as failed:
        broker.start()
    message = str(failed.value)
    assert "ended at its start" in message
    assert str(cluster.log(cluster.nodes[0])) in message
    assert "node id" in message  # what is wrong, in Kafka's words
    assert "\tat " not in message
    assert not broker.status().running
    assert broker.status().pids == ()


@pytest.mark.kill
@pytest.mark.timeout(300)
def test_three_nodes_hold_three_replicas_and_take_acknowledged_writes_with_one_node_killed(
    private_broker: Callable[..., PrivateBroker],
) -> None:
    broker = private_broker(nodes=3)
    settings = Settings(bootstrap_servers=broker.bootstrap, partitions=3)
    ensure(settings, "default", [Kind.TASKS])
    tasks = Topics(settings.prefix, "default").tasks
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    partitions = admin.list_topics(timeout=10).topics[tasks].partitions
    assert {len(partition.replicas) for partition in partitions.values()} == {3}
    broker.kill(node=0)
    put(broker.bootstrap, tasks, b"two of three")
    broker.start()
    assert len(broker.pids()) == 3
    assert first_value(broker.bootstrap, tasks) == b"two of three"
