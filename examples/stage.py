"""What the demos run on: a folder of their own, Kafka, topics; and how they begin and end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import stdlib_index
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from shown import err, say

from taskmill.runtime.config import load_settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.local_broker import LocalBroker
from taskmill.runtime.topics import ensure

QUEUE = "default"

#: librdkafka's settings, by name.
ClientConfig = dict[str, str | int | float | bool]


class Stage(NamedTuple):
    """What a demo runs on: a folder of its own, and how Kafka is reached."""

    home: Path
    prefix: str
    config: ClientConfig

    def topic(self, kind: str) -> str:
        return f"{self.prefix}.{kind}.{QUEUE}"

    @property
    def group(self) -> str:
        return f"{self.prefix}.worker.{QUEUE}"

    @property
    def schemas(self) -> Path:
        return self.home / "schemas"

    @property
    def journal(self) -> Path:
        return self.home / "started.txt"


def made_up(name: str) -> str:
    """A prefix that no topic has yet."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def some_files(limit: int | None) -> list[str]:
    """The standard library's files, or about `limit` of them."""
    paths = stdlib_index.files()
    if limit is None:
        return paths
    # Among few there might be none that dies.
    broken = [path for path in paths if path.endswith("badsyntax_pep3120.py")]
    return sorted({*paths[:: max(1, len(paths) // limit)][: limit - 1], *broken})


def curtain(name: str, play: Callable[[Path], int]) -> None:
    """Run `play` in a folder that goes with it; exits with its code, also on Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: leave nothing behind
    home = Path(tempfile.mkdtemp(prefix=f"taskmill-{name}-"))
    code = 1
    try:
        code = play(home)
    except (TaskmillError, KafkaException, subprocess.SubprocessError) as error:
        code = getattr(error, "exit_code", 1)
        err.print(f"{name}: {error}", markup=False, highlight=False)
    except KeyboardInterrupt:
        code = 130
        err.print(f"{name}: stopped; nothing is left running")
    finally:
        if code in (0, 130):
            shutil.rmtree(home, ignore_errors=True)
        else:
            err.print(f"{name}: logs of the processes are in {home / 'logs'}")
    sys.exit(code)


@contextmanager
def set_up(home: Path, prefix: str, cluster: LocalBroker | None = None) -> Iterator[Stage]:
    """A broker, topics, schemas, and the environment of all processes; all undone afterwards.

    With `cluster` it is started, and no other broker used.
    """
    (home / "logs").mkdir()
    given = load_settings()
    bootstrap, stage = None if cluster else given.bootstrap_servers, None
    broker = cluster or LocalBroker(home, say=lambda text: say("broker", text))
    is_own = bootstrap is None
    try:
        if bootstrap is None:
            say("broker", "starting Apache Kafka")
            bootstrap = broker.start().bootstrap
        assert bootstrap is not None, "a broker that was started has an address"
        say("broker", f"Apache Kafka at {bootstrap}")
        # Level 2: the plain clients raise what goes wrong, and log nothing beside.
        config: ClientConfig = {**given.kafka, "bootstrap.servers": bootstrap, "log_level": 2}
        stage = Stage(home, prefix, config)
        os.environ.update(
            TASKMILL_BOOTSTRAP_SERVERS=bootstrap,
            TASKMILL_PREFIX=prefix,
            TASKMILL_STATE_DIR=str(home),
            STDLIB_INDEX_JOURNAL=str(stage.journal),
        )
        ensure(load_settings(), QUEUE)
        # A file, since the settings may hold a password: the folder is its owner's alone.
        (home / "kafka.json").write_text(json.dumps(stage.config), encoding="utf-8")
        export = [sys.executable, "-P", "-m", "taskmill", "schemas", "export", str(stage.schemas)]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        yield stage
    finally:
        # Its end is bounded; a second Ctrl-C must not leave half of it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if is_own:
            broker.stop()
        elif stage is not None:
            _clear(stage)


def _clear(stage: Stage) -> None:
    """Delete what the demo made on a broker that is not its own."""
    admin = AdminClient(stage.config)
    names = admin.list_topics(timeout=10).topics
    topics = [name for name in names if name.startswith(f"{stage.prefix}.")]
    futures = admin.delete_topics(topics) if topics else {}
    theirs = [f"{stage.prefix}.{kind}" for kind in ("retry", "delayed", "schedules")]
    listed = {one.group_id for one in admin.list_consumer_groups().result(10).valid}
    futures |= admin.delete_consumer_groups([g for g in (stage.group, *theirs) if g in listed])
    for name, future in futures.items():
        if (error := future.exception()) is not None:
            err.print(f"demo: {name} could not be deleted: {error}", markup=False)
