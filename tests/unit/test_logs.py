"""The formatter, and where the log goes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from support.traces import recorded
from taskmill.console.store.address import store_url
from taskmill.console.store.open import open_store
from taskmill.runtime import log_fields, logs
from taskmill.runtime.config import Settings, load_settings
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.log_fields import trace_id_of
from taskmill.runtime.logs import LogSpec, json_formatter, log_to_stderr
from taskmill.runtime.tracing import tracing


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log_fields, "are_wanted", False)
    monkeypatch.setattr(logs, "_installed", None)
    loggers = [logging.getLogger("taskmill"), logging.getLogger()]
    before = [(one.level, list(one.handlers)) for one in loggers]
    yield
    logging.captureWarnings(False)
    for one, (level, handlers) in zip(loggers, before, strict=True):
        one.setLevel(level)
        one.handlers[:] = handlers


def formatted(message: str, *args: object, **more: object) -> dict[str, object]:
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, message, args, None)
    record.__dict__.update(more)
    found: dict[str, object] = json.loads(json_formatter("slot 1").format(record))
    return found


def test_a_line_is_an_object_with_what_it_was_given() -> None:
    line = formatted("%s went", "ünit", task_id="t-1", odd={1, 2})
    assert (line["event"], line["logger"], line["level"]) == ("ünit went", "shop", "info")
    assert (line["task_id"], line["who"]) == ("t-1", "slot 1")
    assert line["odd"] == "{1, 2}"


def test_a_line_says_the_span_that_is_current() -> None:
    with recorded():
        found = tracing()
        assert found is not None
        with found.within(span := found.start("x", "client", {})):
            assert formatted("x")["span_id"] == f"{span.get_span_context().span_id:016x}"
        assert "span_id" not in formatted("x")


def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers.clear()
    log_to_stderr(LogSpec("json", "INFO"))
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("shop").exception("it failed")
    logging.getLogger("shop").info("not told: its logger's level is Python's default")
    logging.getLogger("taskmill.worker").info("told")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["event"] == "it failed"
    assert "ValueError: no" in first["exception"]
    assert second["event"] == "told"


def test_where_others_have_set_a_log_up_it_stays(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    root.handlers[:] = [mine := logging.NullHandler()]
    log_to_stderr(LogSpec("json", "INFO"))
    assert root.handlers == [mine]
    logging.getLogger("taskmill.worker").info("told")
    assert json.loads(capsys.readouterr().err)["event"] == "told"


def test_debug_of_the_command_line_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    root.handlers[:] = [logging.StreamHandler(sys.stderr)]
    logging.getLogger("taskmill").setLevel(logging.DEBUG)
    log_to_stderr(LogSpec("json", "INFO"))
    logging.getLogger("taskmill.worker").debug("told")
    assert json.loads(capsys.readouterr().err)["event"] == "told"


def test_json_without_structlog_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "structlog", None)
    with pytest.raises(ConfigError, match=r"pip install 'taskmill\[logs\]'"):
        log_to_stderr(LogSpec("json", "INFO"))


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"log_format .*: text or json"):
        load_settings(log_format="xml")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", "a" * 32),
        (b"cc-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-more", "a" * 32),
        (b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01", None),
        (b"nonsense", None),
        (None, None),
    ],
)
def test_a_records_trace_is_read_where_it_is_one(value: bytes | None, found: str | None) -> None:
    assert trace_id_of([("x", b""), ("traceparent", value)]) == found


def test_the_stores_statements_are_logged_without_their_values(settings_here: Settings) -> None:
    store = open_store(store_url(settings_here))
    try:
        assert store.engine.hide_parameters
    finally:
        store.close()


@pytest.fixture
def settings_here(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(state_dir=tmp_path_factory.mktemp("state"))
