"""Dead letters and replays, for eyes and as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from taskmill.cli.columns import Column
from taskmill.cli.output import note, print_fitted, print_table, shown
from taskmill.consumer.dlq import PREFIX
from taskmill.consumer.letter_stats import Group, Stats
from taskmill.consumer.letters import Letter
from taskmill.consumer.replay_journal import Job
from taskmill.runtime.errors import DecodeError
from taskmill.schemas import json_form
from taskmill.schemas.codec import Codec

_BAR = 20

_LETTERS = (
    Column("letter"),
    Column("at", 3),
    Column("task", 1),
    Column("id"),
    Column("reason", 5),
    Column("attempts", 6, is_right=True),
    Column("error", is_cut=True),
    Column("fingerprint", 4),
)


def counted(number: int, what: str) -> str:
    """`1 letter`, `1,200 letters`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def summary(letter: Letter) -> dict[str, Any]:
    """A letter as JSON, its bytes and stack aside."""
    told = letter.told
    return {
        "letter": str(letter.place),
        "partition": letter.place.partition,
        "offset": letter.place.offset,
        "at": json_form.iso(letter.at),
        "id": letter.id,
        "task": letter.task,
        "reason": letter.reason,
        "attempts": _number(told.get("attempts")),
        "error": {
            "type": told.get("error-type"),
            "message": told.get("error-message"),
            "fingerprint": letter.fingerprint,
        },
        "replayed": _replayed(letter),
    }


def document(letter: Letter, codec: Codec) -> dict[str, Any]:
    """A letter as JSON, whole. `task` is its record, where the bytes can be read."""
    told = letter.told
    out = summary(letter)
    out["stack"] = told.get("error-stack")
    out["original"] = {
        "topic": told.get("original-topic"),
        "partition": _number(told.get("original-partition")),
        "offset": _number(told.get("original-offset")),
        "at": json_form.iso(_number(told.get("original-timestamp"))),
    }
    for name in ("first-failure", "last-failure"):
        out[name.replace("-", "_")] = json_form.iso(_number(told.get(name)))
    out["omitted"] = letter.omitted
    out["headers"] = {
        name: None if content is None else content.decode("utf-8", "backslashreplace")
        for name, content in letter.headers
        if name != "taskmill-error-stack"
    }
    try:
        out["record"] = json_form.as_json(codec.decode_task(letter.value))
    except DecodeError as error:
        out["record"] = None
        out["undecodable"] = str(error)
        out["value_base64"] = base64.b64encode(letter.value or b"").decode("ascii")
    return out


def print_letter(letter: Letter, codec: Codec) -> None:
    """A letter whole, for eyes."""
    told, whole = letter.told, document(letter, codec)
    record = whole["record"] or {}
    original = whole["original"]
    rows: list[tuple[str, object]] = [
        ("letter", letter.place),
        ("id", letter.id),
        ("task", letter.task),
        ("reason", letter.reason),
        ("error", letter.error),
        ("fingerprint", letter.fingerprint),
        ("attempts", told.get("attempts")),
        ("first failure", whole["first_failure"]),
        ("last failure", whole["last_failure"]),
        ("enqueued", record.get("enqueued_at")),
        ("came from", f"{original['topic']} [{original['partition']}] offset {original['offset']}"),
    ]
    if "payload" in record:
        rows.append(("arguments", record["payload"]))
    elif "payload_base64" in record:
        rows.append((f"payload ({record['content_type']})", record["payload_base64"]))
    else:
        rows.append(("undecodable", whole["undecodable"]))
        rows.append(("value (base64)", whole["value_base64"]))
    if own := {k: v for k, v in whole["headers"].items() if not k.startswith(PREFIX)}:
        rows.append(("headers", own))
    if letter.omitted:
        rows.append(("not whole", letter.omitted))
    if one := letter.replayed:
        by = f"as generation {one.generation}, {json_form.iso(one.at)}, by replay {one.replay}"
        rows.append(("replayed", by))
    print_table(("field", "value"), [(k, _json(v)) for k, v in rows])
    if stack := whole["stack"]:
        for line in stack.splitlines():
            click.echo(f"  {shown(line)}")
        click.echo()


def _json(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _replayed(letter: Letter) -> dict[str, Any] | None:
    one = letter.replayed
    if one is None:
        return None
    return {"replay": one.replay, "at": json_form.iso(one.at), "generation": one.generation}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def print_letters(letters: Sequence[Letter]) -> None:
    """A row each."""
    any_replayed = any(letter.replayed for letter in letters)
    print_fitted(
        (*_LETTERS, *((Column("replayed", 2),) if any_replayed else ())),
        [
            (
                letter.place,
                json_form.iso(letter.at),
                letter.task,
                letter.id,
                letter.reason,
                letter.told.get("attempts"),
                _cut(letter.error),
                letter.fingerprint,
                *((letter.replayed and letter.replayed.replay,) if any_replayed else ()),
            )
            for letter in letters
        ],
    )


def print_groups(stats: Stats, kind: str, limit: int) -> None:
    """The groups of one kind as a table with bars; nothing where there are none."""
    groups = stats.groups(kind)
    if not groups:
        return
    errors = kind == "fingerprint"
    columns = (
        Column(kind),
        Column("letters", is_right=True),
        Column("", 3),
        Column("first", 2),
        Column("last", 1),
    )
    print_fitted(
        (*columns, *((Column("error", is_cut=True),) if errors else ())),
        [
            (
                group.value,
                f"{group.letters:,}",
                "█" * max(1, round(_BAR * group.letters / groups[0].letters)),
                json_form.iso(group.first),
                json_form.iso(group.last),
                *((_cut(group.error),) if errors else ()),
            )
            for group in groups[:limit]
        ],
    )
    if len(groups) > limit:
        note(f"and {len(groups) - limit} more by {kind}")


def group_document(group: Group, kind: str) -> dict[str, Any]:
    """A group as JSON."""
    error = {"error": group.error} if kind == "fingerprint" else {}
    return {
        kind: group.value,
        "letters": group.letters,
        "first": json_form.iso(group.first),
        "last": json_form.iso(group.last),
        **error,
    }


def job_document(job: Job, replayed: int) -> dict[str, Any]:
    """A replay as JSON; `replayed`: by now."""
    times = ("began_at", "since", "until", "ended_at")
    told = {name: json_form.iso(getattr(job, name)) for name in times}
    return {**asdict(job), **told, "replayed": replayed}


def _cut(text: str, most: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
