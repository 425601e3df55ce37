from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.brokers import quiet_port
from support.commands import Ran, runner, set_environment
from support.oracle import Oracle
from support.states import StateWriter, make_state
from support.wire import read_task
from taskmill.app import App
from taskmill.runtime.config import Settings
from taskmill.schemas.states import Status

pytestmark = pytest.mark.kafka

SHOP = """
from taskmill import App
app = App("shop")

@app.task
def send_receipt(order_id: int, email: str = "x") -> dict: ...
"""


@pytest.fixture
def shop(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A working directory with an App in it; the commands' settings are the test's."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    set_environment(settings, monkeypatch)
    yield settings
    sys.modules.pop("shop", None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], shop: Settings) -> Any:
    command = runner(capsys)

    def run(*args: str) -> Ran:
        sys.modules.pop("shop", None)
        return command(*args)

    return run


APP = ("-A", "shop:app")


def lies_on_the_topic(settings: Settings, task_id: str, queue: str = "default") -> bool:
    with App("look", settings) as app:
        return app.handle(task_id, queue).queued() is not None


def test_one_task_is_enqueued_and_its_id_printed(run: Any, shop: Settings) -> None:
    plain = run("enqueue", "send_receipt", *APP, "--args", '{"order_id": 1}')
    assert (plain.code, plain.err) == (0, "")
    assert lies_on_the_topic(shop, plain.out.strip())
    given = run("enqueue", "anything", "--id", "r:1", "-q", "mail", "--json")
    assert given.json == {"id": "r:1", "name": "anything", "queue": "mail"}
    assert lies_on_the_topic(shop, "r:1", "mail")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("enqueue",), "a NAME is needed, or --from"),
        (("enqueue", "x", "--args", "[1]"), "--args is no JSON object"),
        (("enqueue", "x", "--args", "{"), "--args is no JSON"),
        (("enqueue", "x", "--args", '{"a": NaN}'), "--args is no JSON: NaN is no JSON number"),
        (("enqueue", "x", "--id", ""), "task ID is 0 bytes long"),
        (("enqueue", "x", "-q", "a b"), "queue 'a b'"),
        (("enqueue", "x", "--timeout", "10"), "timeout: duration '10': expected a number and one"),
        (("enqueue", "x", "--expires", "0s"), "expires='0s': allowed are 1ms to 3650d"),
        (("enqueue", "x", "--skip-bad"), "--skip-bad goes with --from"),
        (("enqueue", "x", "--from", "shop.py", "--id", "1"), "--id does not go with --from"),
        (("enqueue", "x", "--from", "nowhere"), "nowhere"),
        (("enqueue", "send_recept", *APP), "did you mean 'send_receipt'"),
        (("enqueue", "send_receipt", *APP), "argument 'order_id' is missing"),
        (("enqueue", "x", "-A", "shop:none"), "module shop has no 'none'; Apps in there: app"),
        (("result", "x", "--wait", "10"), "expected a number and one of ms, s, m, h, d"),
        (("status", "x", "-q", "a/b"), "queue 'a/b'"),
        (("status", ""), "task ID is 0 bytes long"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    run: Any, args: tuple[str, ...], message: str
) -> None:
    ran = run(*args)
    assert ran.code == 2
    assert ran.out == ""
    assert message in ran.err
    assert ran.err.count("\n") == 1


def test_time_limits_are_given_for_one_task_and_for_the_lines_that_do_not_say_otherwise(
    run: Any, shop: Settings
) -> None:
    limits = ("--timeout", "10s", "--expires", "1h", "--deadline", "1d")
    assert run("enqueue", "x", "--id", "given", *limits).code == 0
    lines = [
        {"args": {}, "id": "of the file"},
        {"args": {}, "id": "of its own", "timeout": "1s", "deadline": "2d"},
    ]
    Path("tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run("enqueue", "x", "--from", "tasks.jsonl", *limits).code == 0
    lying = Oracle(str(shop.bootstrap_servers), shop.prefix)
    found = {}
    for seen in lying.read(lying.tasks):
        task = read_task(seen.value or b"")
        at = task["enqueued_at"]
        found[task["id"]] = (task["timeout_ms"], task["expires_at"] - at, task["deadline"] - at)
    hour, day = 3_600_000, 86_400_000
    assert found == {
        "given": (10_000, hour, day),
        "of the file": (10_000, hour, day),
        "of its own": (1_000, hour, 2 * day),
    }


def test_an_unreachable_broker_is_exit_code_3(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_BOOTSTRAP_SERVERS", f"127.0.0.1:{quiet_port()}")
    monkeypatch.setenv("TASKMILL_ENQUEUE_TIMEOUT_S", "0.5")
    ran = run("enqueue", "x")
    assert (ran.code, ran.out) == (3, "")
    assert "did not answer within 0.5 s" in ran.err
    assert ran.err.count("\n") == 1


LINES = """\
{"args": {"order_id": 1}, "id": "one"}

{"args": {"order_id": "x"}}
{"args": {"order_id": 2}, "name": "send_receipt", "queue": "mail", "id": "two"}
{"args": {"order_id": 3}, "priority": "high"}
[]
{"args": {"order_id": 4}, "name": "nobody"}
{"order_id": 5}
{"args": {"order_id": 6}, "id": 6}
not json
"""


def test_a_file_with_a_bad_line_sends_nothing_unless_told_to_skip_it(
    run: Any, shop: Settings
) -> None:
    Path("tasks.jsonl").write_text(LINES)
    refused = run("enqueue", "send_receipt", *APP, "--from", "tasks.jsonl")
    assert refused.code == 2
    assert refused.err.startswith("taskmill: tasks.jsonl, line 3: task 'send_receipt': argument")
    assert "(and 6 more bad lines); nothing was sent" in refused.err
    assert not lies_on_the_topic(shop, "one")

    sent = run("enqueue", "send_receipt", *APP, "--from", "tasks.jsonl", "--skip-bad", "--json")
    assert sent.code == 0
    assert (sent.json["accepted"], sent.json["ids"]) == (2, ["one", "two"])
    assert {one["line"]: one["error"].split(":")[0] for one in sent.json["skipped"]} == {
        3: "task 'send_receipt'",
        5: "unknown field 'priority'; allowed",
        6: "the line is no JSON object",
        7: "no task 'nobody' is declared; declared",
        8: "unknown field 'order_id'; allowed",
        9: "field 'id' is no string",
        10: "the line is no JSON",
    }
    assert lies_on_the_topic(shop, "one")
    assert lies_on_the_topic(shop, "two", "mail")


def test_many_tasks_come_from_stdin_which_is_read_once(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    lines = b"".join(b'{"args": {"order_id": %d}}\n' % n for n in range(6_000))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(lines), "utf-8"))
    ran = run("enqueue", "send_receipt", *APP, "--from", "-")
    assert ran.code == 0
    assert ran.err == "6000 tasks accepted\n"
    assert len(set(ran.out.split())) == 6_000


def test_a_line_too_large_is_found_before_anything_is_sent(
    run: Any, shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_MAX_TASK_BYTES", "1024")
    Path("tasks.jsonl").write_text(
        '{"args": {}, "id": "small"}\n' + json.dumps({"args": {"text": "x" * 2000}}) + "\n"
    )
    ran = run("enqueue", "x", "--from", "tasks.jsonl")
    assert ran.code == 2
    assert "line 2: task 'x' is 2" in ran.err
    with App("look", shop) as app:
        assert app.handle("small").queued() is None


def test_status_shows_where_a_task_stands(run: Any, shop: Settings) -> None:
    run("enqueue", "send_receipt", *APP, "--args", '{"order_id": 1}', "--id", "a/b ü")
    queued = run("status", "a/b ü", "--json")
    assert (queued.code, queued.json["status"], queued.json["name"]) == (
        0,
        "queued",
        "send_receipt",
    )
    writer = StateWriter(shop)
    writer.commit(make_state("a/b ü", started_at=1_700_000_000_123, result=b'{"n": 1}'))
    done = run("result", "a/b ü", "--wait", "20s", "--json").json
    assert (done["status"], done["started_at"], done["result"]) == (
        "succeeded",
        "2023-11-14T22:13:20.123Z",
        {"n": 1},
    )
    assert run("status", "a/b ü", "--json").json == done
    table = run("status", "a/b ü").out
    assert "succeeded" in table
    assert "next_attempt_at" not in table, "what is not there is left out"
    unknown = run("status", "nobody")
    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.err.startswith("taskmill: no task 'nobody' in queue 'default': it was not enq")
    nowhere = run("status", "a/b ü", "-q", "defualt")
    assert nowhere.code == 2
    assert "queue 'defualt' has no topics; queues here: default" in nowhere.err


def test_result_prints_what_the_task_returned_or_says_why_not(run: Any, shop: Settings) -> None:
    for one in ("good", "bad", "slow"):
        run("enqueue", "send_receipt", *APP, "--args", '{"order_id": 1}', "--id", one)
    writer = StateWriter(shop)
    writer.commit(make_state("good", result=b'["ok"]'), make_state("bad", Status.DEAD))
    good = run("result", "good", "--wait", "20s")
    assert (good.code, good.json, good.err) == (0, ["ok"], "")
    assert run("result", "good").json == ["ok"]
    bad = run("result", "bad", "--wait", "20s")
    assert (bad.code, bad.out) == (1, "")
    assert "task 'bad' is dead" in bad.err
    assert "ValueError: no" in bad.err
    assert run("result", "bad", "--wait", "20s", "--json").json["error"]["type"] == "ValueError"
    slow = run("result", "slow")
    assert (slow.code, slow.err) == (
        1,
        "taskmill: task 'slow' is queued; `--wait 10s` waits for its end\n",
    )
    late = run("result", "slow", "--wait", "200ms")
    assert (late.code, late.out) == (1, "")
    assert "has not ended within 0.2 s" in late.err


def test_enqueue_waits_for_the_result_where_asked_to(run: Any, shop: Settings) -> None:
    run("enqueue", "send_receipt", *APP, "--args", '{"order_id": 1}', "--id", "done")
    StateWriter(shop).commit(make_state("done", result=b'{"n": 1}'))
    # A twin of a finished task is a duplicate: its result is the first one's.
    again = ("enqueue", "send_receipt", *APP, "--args", '{"order_id": 1}', "--id", "done")
    ran = run(*again, "--wait")
    assert (ran.code, ran.json, ran.err) == (0, {"n": 1}, "done\n")
    assert run(*again, "--wait", "--json").json["result"] == {"n": 1}
