"""Workers whose handlers work inside PostgreSQL transactions, on a real Kafka.

What is promised: what a handler does there happens exactly once, and so does its outcome in Kafka,
whichever of the two, or the worker between them, dies.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from support.brokers import PrivateBroker
from support.effects import EFFECTS, done, table
from support.oracle import Oracle
from support.postgres import Postgres
from support.witness import Witness
from support.workers import Gate, WorkerProcess, runs
from taskmill import App
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(120)]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "postgresql.md"


@pytest.fixture
def at(settings: Settings, database: str, postgres: Postgres) -> Settings:
    table(postgres, database)
    return changed(settings, outcomes_url=database)


@pytest.fixture
def oracle(at: Settings) -> Oracle:
    ensure(at, "default")
    return Oracle(str(at.bootstrap_servers), at.prefix)


def changed(settings: Settings, **fields: Any) -> Settings:
    return Settings(**{**settings.model_dump(), **fields})


def test_effects_and_outcomes_are_committed_together(
    at: Settings, tmp_path: Path, oracle: Oracle, postgres: Postgres
) -> None:
    of = {"add": "a", "add_thread": "t", "fails": "f"}
    ids = {name: [f"{letter}{n}" for n in range(100)] for name, letter in of.items()}
    with WorkerProcess(at, tmp_path, target=EFFECTS) as worker:
        for name, some in ids.items():
            oracle.put_tasks(some, name)
        oracle.wait_states([id for some in ids.values() for id in some])
        oracle.wait_consumed()
        assert worker.terminate() == 0, worker.log
    good = [*ids["add"], *ids["add_thread"]]
    states = oracle.check([*good, *ids["fails"]])
    assert done(postgres, str(at.outcomes_url)) == dict.fromkeys(good, 1)
    assert {states[id.encode()][-1]["status"] for id in good} == {"succeeded"}
    assert {states[id.encode()][-1]["status"] for id in ids["fails"]} == {"dead"}
    assert all(b"fails" in r.headers["taskmill-error-stack"] for r in oracle.letters())


@pytest.mark.kill
@pytest.mark.timeout(180)  # a broker of its own is started, and a dead member's session waited for
@pytest.mark.parametrize("name", ["gated", "gated_thread", "gated_fails"])
def test_what_postgresql_has_and_kafka_has_not_is_emitted_and_not_run(
    settings: Settings,
    tmp_path: Path,
    database: str,
    postgres: Postgres,
    private_broker: Callable[..., PrivateBroker],
    name: str,
) -> None:
    table(postgres, database)
    broker = private_broker()
    bootstrap = broker.start()
    at = changed(settings, bootstrap_servers=bootstrap, outcomes_url=database)
    ensure(at, "default")
    oracle = Oracle(bootstrap, at.prefix)
    ids = [f"t{n}" for n in range(4)]
    with Gate() as gate:
        options = ("--concurrency", "8")
        with WorkerProcess(at, tmp_path, *options, target=EFFECTS, env=gate.env) as worker:
            oracle.put_tasks(ids, name)
            gate.wait_begun(*ids, timeout_s=60)
            broker.pause()  # nothing is committed to Kafka any more
            gate.open()
            stored = "SELECT count(*) FROM taskmill_outcomes"
            wait_for(lambda: postgres.query(stored, database) == [(len(ids),)])
            first = worker.pid
            worker.kill()
        broker.resume()
        with WorkerProcess(at, tmp_path, *options, target=EFFECTS, env=gate.env) as worker:
            states = oracle.wait_states(ids, 60)
            oracle.wait_consumed()
            assert worker.terminate() == 0, worker.log
        assert sorted(gate.begun) == ids
    # Told by the second worker, in the words of the first.
    if name == "gated_fails":
        assert {s["error"]["message"] for s in states.values()} == {f"by {first}"}
        assert done(postgres, database) == {}
    else:
        assert {s["result"] for s in states.values()} == {str(first).encode()}
        assert done(postgres, database) == dict.fromkeys(ids, 1)
    oracle.check(ids)


@pytest.mark.kill
@pytest.mark.proof("PostgreSQL killed between its commit and Kafka's")
def test_tasks_outlast_a_postgresql_that_is_killed_under_load(
    settings: Settings, tmp_path: Path, private_postgres: Postgres, seed: int
) -> None:
    database = private_postgres.database("load")
    table(private_postgres, database)
    at = changed(settings, outcomes_url=database)
    ensure(at, "default")
    oracle = Oracle(str(at.bootstrap_servers), at.prefix)
    random = Random(seed)
    print(f"seed {seed}")
    ids = [f"t{n}" for n in range(1500)]
    with (
        Witness(oracle.bootstrap, [oracle.state]) as witness,
        WorkerProcess(at, tmp_path, target=EFFECTS) as worker,
    ):
        for name, some in (("add", ids[:1000]), ("add_thread", ids[1000:])):
            oracle.put_tasks(some, name, {"ms": 10})
        for _ in range(3):
            wanted = len(witness.ended) + random.randrange(1, 300)
            witness.until(lambda n=wanted: len(witness.ended) >= n, f"{wanted} outcomes")
            private_postgres.kill()
            worker.wait_for("PostgreSQL: ")
            time.sleep(random.uniform(0, 2))  # how long it is away
            private_postgres.start()
        oracle.wait_states(ids, 60)
        oracle.wait_consumed()
        assert worker.terminate() == 0, worker.log
        # Once a minute, however many tasks had to wait: coroutines' and threads'.
        assert worker.log.count("PostgreSQL: ") == 2, worker.log
    states = oracle.check(ids)
    assert {s["status"] for found in states.values() for s in found} <= {"succeeded", "running"}
    assert done(private_postgres, database) == dict.fromkeys(ids, 1)


@pytest.mark.kill
@pytest.mark.timeout(180)
@pytest.mark.proof("PostgreSQL: workers killed between its commit and Kafka's")
def test_effects_happen_once_when_workers_are_killed(
    at: Settings, tmp_path: Path, oracle: Oracle, postgres: Postgres, seed: int
) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    at = changed(at, group_protocol="classic" if seed % 2 else "consumer")
    ids: list[str] = []
    workers = [WorkerProcess(at, tmp_path, target=EFFECTS) for _ in range(2)]
    try:
        with Witness(oracle.bootstrap, [oracle.state]) as witness:
            for _ in range(2):
                more = [f"t{n}" for n in range(len(ids), len(ids) + 400)]
                ids += more
                for name, some in (("add", more[:300]), ("add_thread", more[300:])):
                    oracle.put_tasks(some, name, {"ms": random.uniform(0, 20)})
                wanted = len(witness.ended) + random.randrange(1, 200)
                witness.until(lambda n=wanted: len(witness.ended) >= n, f"{wanted} outcomes", 60)
                time.sleep(random.uniform(0, 0.02))  # the point in the commit cycle
                workers.pop(random.randrange(2)).kill()
                workers.append(WorkerProcess(at, tmp_path, target=EFFECTS))
            oracle.wait_states(ids, 90)
            oracle.wait_consumed()
    finally:
        for worker in workers:
            worker.kill()
            print(f"--- worker {worker.pid}\n{worker.log}")
    oracle.check(ids)
    assert done(postgres, str(at.outcomes_url)) == dict.fromkeys(ids, 1)
    print(f"{len(runs(tmp_path)) - len(ids)} of {len(ids)} handlers began again")


@pytest.mark.kill
@pytest.mark.parametrize("name", ["gated", "gated_thread"])
def test_the_heir_of_a_frozen_worker_waits_for_its_transaction(
    at: Settings, tmp_path: Path, oracle: Oracle, postgres: Postgres, name: str
) -> None:
    database = str(at.outcomes_url)
    blocked = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with Gate() as gate, WorkerProcess(at, tmp_path, target=EFFECTS, env=gate.env) as zombie:
        oracle.put_tasks(["t"], name)
        gate.wait_begun("t")
        zombie.signal(19)
        with WorkerProcess(at, tmp_path, target=EFFECTS, env=gate.env) as heir:
            heir.wait_ready(2)
            # The zombie has not committed, nor rolled back: nobody else may run it.
            wait_for(lambda: postgres.query(blocked, database) == [(1,)])
            assert gate.begun == ["t"]
            # The word to go on lies in the zombie's socket, before it learns that it is one.
            gate.open()
            zombie.signal(18)
            state = oracle.wait_state("t")
            oracle.wait_consumed()
    # Whichever came first, the zombie's commit or its cancelling: one of them did it, once.
    assert done(postgres, database) == {"t": 1}
    assert len(oracle.check(["t"])[b"t"]) <= 2  # one may be `running`
    pids = {str(w.pid).encode(): w for w in (zombie, heir)}
    assert state["result"] in pids
    assert len(gate.begun) == (1 if pids[state["result"]] is zombie else 2)


def test_a_worker_waits_for_a_postgresql_that_is_away_at_its_start(
    settings: Settings, tmp_path: Path, private_postgres: Postgres
) -> None:
    database = private_postgres.database("late")
    table(private_postgres, database)
    at = changed(settings, outcomes_url=database)
    ensure(at, "default")
    oracle = Oracle(str(at.bootstrap_servers), at.prefix)
    oracle.put_tasks(["t"], "add")
    private_postgres.kill()
    with WorkerProcess(at, tmp_path, "--drain-timeout", "2s", target=EFFECTS) as worker:
        worker.wait_for("PostgreSQL at TASKMILL_OUTCOMES_URL: .*; waiting for it")
        private_postgres.start()
        assert oracle.wait_state("t")["status"] == "succeeded"
        private_postgres.kill()
        oracle.put_tasks(["next"], "add")
        worker.wait_for("its tasks are tried until it works")
        # It is left to whoever comes next.
        worker.signal(15)
        assert worker.wait(60) == 1, worker.log
    assert {s["status"] for s in oracle.states()[b"next"]} <= {"running"}


def test_a_worker_without_the_url_that_a_task_needs_says_so(at: Settings, tmp_path: Path) -> None:
    with WorkerProcess(changed(at, outcomes_url=None), tmp_path, target=EFFECTS) as worker:
        assert worker.wait() == 2
        (line,) = worker.lines
    assert "'add'" in line
    assert "TASKMILL_OUTCOMES_URL" in line


def test_what_the_page_about_it_shows_works(
    settings: Settings, tmp_path: Path, postgres: Postgres, database: str
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (sql,) = re.findall(r"^```sql\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "shop.py").write_text(code)
    postgres.query("CREATE TABLE accounts (id text, cents int)", database)
    postgres.query("INSERT INTO accounts VALUES ('mine', 100)", database)
    at = changed(settings, outcomes_url=database)
    ensure(at, "default")
    oracle = Oracle(str(at.bootstrap_servers), at.prefix)
    with WorkerProcess(at, tmp_path, target="shop:app"):
        oracle.put_tasks(["a"], "pay", {"account": "mine", "cents": 70})
        assert oracle.wait_state("a")["result"] == b"30"
        oracle.put_tasks(["b"], "pay", {"account": "mine", "cents": 70})
        assert oracle.wait_state("b")["status"] == "dead"
    assert postgres.query("SELECT cents FROM accounts", database) == [(30,)]
    rows = postgres.query(sql, database)
    assert [row[:3] for row in rows] == [("b", "dead", None), ("a", "succeeded", "30")]
    assert "not enough money" in rows[0][3]


def wait_for(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def test_a_cancelled_one_leaves_nothing_behind_and_does_not_run_again(
    at: Settings, tmp_path: Path, oracle: Oracle, postgres: Postgres
) -> None:
    url, ids = str(at.outcomes_url), ["running", "waits"]
    with Gate() as gate, App("client", at) as app:
        options = ("--concurrency", "1")
        with WorkerProcess(at, tmp_path, *options, target=EFFECTS, env=gate.env) as worker:
            oracle.put_tasks(["running"], "gated")
            gate.wait_begun("running")
            oracle.put_tasks(["waits"], "add")
            for id in reversed(ids):
                app.handle(id).cancel()
            states = oracle.wait_states(ids)
            oracle.put_tasks(["after"], "add")
            oracle.wait_state("after")
            assert worker.terminate() == 0, worker.log
    assert {state["status"] for state in states.values()} == {"cancelled"}
    assert done(postgres, url) == {"after": 1}
    assert runs(tmp_path) == ["after"]
    rows = postgres.query("SELECT status, count(*) FROM taskmill_outcomes GROUP BY status", url)
    assert dict(rows).get("cancelled", 0) >= 1, "what began is not begun again there"
