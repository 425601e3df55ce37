"""Where the log of this process goes: to stderr, as text, or as JSON with a line's fields.

No line of ours holds a payload, a result or a secret, at any level. What a handler raises is told
with its text and stack, which are its author's: an exception's message is no place for secrets.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from taskmill.runtime import log_fields
from taskmill.runtime.errors import ConfigError

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

FORMATS = ("text", "json")


class LogSpec(NamedTuple):
    """How a process logs: "text" or "json", from which level on; `who`: what tells its lines from
    those of others that write to the same stderr."""

    format: str
    level: str
    who: str = ""


_installed: LogSpec | None = None


def installed() -> LogSpec | None:
    """How this process logs by `log_to_stderr`; None: as whoever embeds us says."""
    return _installed


def log_to_stderr(spec: LogSpec) -> None:
    """Send the log to stderr: taskmill's lines from `spec.level` on.

    As JSON, other loggers' lines too, from the level that each has (Python's default: WARNING),
    unless the root logger has handlers of somebody else. Raises ConfigError without structlog.
    """
    global _installed
    ours, root = logging.getLogger("taskmill"), logging.getLogger()
    is_json = spec.format == "json"
    formatter = json_formatter(spec.who) if is_json else _text_formatter(spec.who)
    if ours.level == logging.DEBUG:  # `--debug` has set it up
        _installed = spec._replace(level="DEBUG")
        if is_json:
            for one in root.handlers:
                one.setFormatter(formatter)
        return
    _installed = spec
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    (ours if root.handlers or not is_json else root).addHandler(handler)
    ours.setLevel(spec.level)
    if is_json:
        logging.captureWarnings(True)


def _text_formatter(who: str) -> logging.Formatter:
    mark = f"[{who}] " if who else ""
    return logging.Formatter(f"%(asctime)s %(levelname)-7s {mark}%(name)s: %(message)s")


def json_formatter(who: str = "") -> logging.Formatter:
    """A formatter for a handler of the standard library: an object a line, with `timestamp` (UTC),
    `level`, `logger`, `event`, and what is known of the task that the line is about.

    Raises ConfigError where structlog is not installed.
    """
    try:
        import structlog
    except ImportError:
        raise ConfigError("logs as JSON need structlog: pip install 'taskmill[logs]'") from None
    log_fields.are_wanted = True
    stdlib = structlog.stdlib

    def heads(_: Any, __: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event["_record"]
        found: EventDict = {
            "timestamp": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event.pop("event"),
            **({"who": who} if who else {}),
        }
        # Of the line itself, or of where it was written: the former knows better.
        found.update({**log_fields.fields_here(), **event})
        return found

    before: list[Processor] = [
        stdlib.ExtraAdder(),
        heads,
        structlog.processors.format_exc_info,
        structlog.processors.StackInfoRenderer(),
    ]
    return stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def _iso(seconds: float) -> str:
    """A LogRecord's time in ISO 8601, UTC, to the millisecond."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
