"""The demo's independent recount: Kafka's records and the files, read without taskmill."""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
import os
import signal
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from plain_reader import ENDS, Config, Record, Schema, read_all

#: What a file holds: its definitions and hash, or the error that parsing it raises.
Direct = dict[str, Any]
Place = tuple[int, int]


@dataclass
class Found:
    """What lies on the topics. A place is a partition and an offset of the tasks topic."""

    tasks: dict[Place, tuple[bytes, bytes]] = field(default_factory=dict)
    #: The first offset that the worker group has not passed, by partition.
    committed: dict[int, int] = field(default_factory=dict)
    ends: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    letters: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))

    @property
    def passed(self) -> int:
        """How many records the worker group has passed."""
        return sum(offset < self.committed.get(p, 0) for p, offset in self.tasks)

    @property
    def outcomes(self) -> int:
        """How many tasks' ends are committed."""
        return sum(map(len, self.ends.values()))


def read_topics(config: Config, prefix: str, queue: str, schemas: Path) -> Found:
    """Read the queue's topics to their ends; `schemas` holds the exported .avsc files."""
    found = Found()
    tasks = f"{prefix}.tasks.{queue}"
    for record in read_all(config, tasks):
        found.tasks[record.partition, record.offset] = record.key, record.value
    found.committed = committed(config, f"{prefix}.worker.{queue}", tasks)
    state, result = Schema(schemas / "TaskState.avsc"), Schema(schemas / "TaskResult.avsc")
    large = {
        record.id: result.decode(record.value)
        for record in read_all(config, f"{prefix}.results.{queue}")
    }
    for record in read_all(config, f"{prefix}.state.{queue}"):
        one = state.decode(record.value)
        if one["status"] in ENDS:
            if one["large"]:
                # What did not fit into the state lies there whole.
                one |= {k: v for k, v in large[one["id"]].items() if k in ("result", "error")}
            found.ends[one["id"]].append(one)
    for record in read_all(config, f"{prefix}.dlq.{queue}"):
        found.letters[record.id].append(record)
    return found


def committed(config: Config, group: str, topic: str) -> dict[int, int]:
    """The offsets that `group` has committed, by partition."""
    consumer = Consumer({**config, "group.id": group})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        offsets = consumer.committed([TopicPartition(topic, p) for p in partitions], timeout=10)
        return {one.partition: max(0, one.offset) for one in offsets}
    finally:
        consumer.close()


def all_passed(config: Config, group: str, topic: str) -> bool:
    """Whether `group` has passed every record of `topic`. (Behind the last one there may be the
    marker of a transaction, which counts in the topic's end and need not be passed.)"""
    passed = committed(config, group, topic)
    return all(
        record.offset < passed.get(record.partition, 0) for record in read_all(config, topic)
    )


# ---- the files, counted here -------------------------------------------------------------------


def direct_count(paths: Sequence[str]) -> dict[str, Direct]:
    """What each file holds, by a count of our own, on all cores."""
    cores = os.cpu_count() or 1
    # Not by fork: the parent has threads of Kafka clients.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(cores, mp_context=context, initializer=_ready)
    try:
        return dict(zip(paths, pool.map(_count_below_root, paths, chunksize=20), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def _ready() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends these
    warnings.simplefilter("ignore")


def _count_below_root(path: str) -> Direct:
    return count(Path(sysconfig.get_path("stdlib")) / path)


def count(path: Path) -> Direct:
    """What one file holds."""
    content = path.read_bytes()
    try:
        names = [type(node).__name__ for node in ast.walk(ast.parse(content))]
    except Exception as error:
        return {"error": type(error).__name__}
    return {
        "functions": names.count("FunctionDef") + names.count("AsyncFunctionDef"),
        "classes": names.count("ClassDef"),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


# ---- do they agree? ----------------------------------------------------------------------------


def differences(found: Found, direct: Mapping[str, Direct]) -> list[str]:
    """Everything in which the topics differ from the files; empty where all agree."""
    wrong = [f"{id}: an outcome of no file of ours" for id in found.ends if id not in direct]
    wrong += [f"{id}: a dead letter of no file" for id in found.letters if id not in direct]
    for path, expected in direct.items():
        ends = found.ends.get(path, [])
        letters = found.letters.get(path, [])
        if len(ends) != 1:
            wrong.append(f"{path}: {len(ends)} committed outcomes, not one")
        elif ends[0]["status"] == "succeeded":
            wrong += _succeeded(path, ends[0], letters, expected)
        elif ends[0]["status"] == "dead":
            wrong += _dead(path, ends[0], letters, expected, found)
        else:
            wrong.append(f"{path}: ended as {ends[0]['status']}")
    if found.passed != len(found.tasks):
        wrong.append(f"{len(found.tasks)} records on tasks, of which {found.passed} are passed")
    return wrong


def _succeeded(
    path: str, end: Mapping[str, Any], letters: Sequence[Record], expected: Direct
) -> list[str]:
    wrong = [f"{path}: succeeded, and has a dead letter"] if letters else []
    counted = json.loads(end["result"])
    if counted != expected:
        wrong.append(f"{path}: taskmill counted {counted}, the recount {expected}")
    return wrong


def _dead(
    path: str,
    end: Mapping[str, Any],
    letters: Sequence[Record],
    expected: Direct,
    found: Found,
) -> list[str]:
    wrong = []
    if end["error"]["type"] != expected.get("error"):
        wrong.append(f"{path}: dead of {end['error']['type']}, the recount found {expected}")
    if len(letters) != 1:
        return [*wrong, f"{path}: dead, with {len(letters)} dead letters, not one"]
    letter = letters[0]
    place = (
        int(letter.headers["taskmill-original-partition"]),
        int(letter.headers["taskmill-original-offset"]),
    )
    if place != (end["source_partition"], end["source_offset"]):
        wrong.append(f"{path}: its letter comes from {place}, its outcome does not")
    if (letter.key, letter.value) != found.tasks.get(place):
        wrong.append(f"{path}: its letter is not the original, byte for byte")
    return wrong
