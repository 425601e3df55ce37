"""Server-sent events (the HTML standard, 9.2): parsed, and resumed where a stream was lost."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from taskmill.console.api.models import Task
from taskmill.console.client.failures import document
from taskmill.console.client.wire import Answer, Request

#: Without anything for so long, not even a comment (one in 10 s), a stream is dead.
SILENCE_S = 30.0
#: Bytes of one event: far above what a task's document is.
_MOST = 4 * 1024 * 1024
_task = document(Task)


class Event(NamedTuple):
    """What a stream told. `kind`: "task", of one that changed; "hello", the stream has begun or
    goes on; "reset": what was missed meanwhile is not known, lists are to be loaded anew."""

    id: str
    kind: str
    task: Task | None


class Follow:
    """A stream across its connections: `request` of the next one, `feed` with its bytes."""

    def __init__(self, request: Request, last_id: str | None = None) -> None:
        self._request = request
        self.last_id = last_id
        self.retry_s = 2.0
        self.begin()

    def begin(self) -> None:
        """Another connection: what an old one left half said is forgotten."""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""
        self._id = self.last_id or ""
        self._kind = ""
        self._data: list[str] = []

    @property
    def request(self) -> Request:
        """Asks for what comes behind the last event."""
        headers = [("accept", "text/event-stream")]
        if self.last_id:
            headers.append(("last-event-id", self.last_id))
        return self._request._replace(headers=tuple(headers))

    def feed(self, data: bytes) -> list[Event]:
        """The events that are whole with these bytes."""
        text = self._rest + self._decode(data)
        if len(text) > _MOST:
            raise ValueError("an event that does not end")
        # A line ends with \n or \r\n; the console writes no lone \r.
        *lines, self._rest = text.split("\n")
        found = []
        for line in lines:
            event = self._line(line.removesuffix("\r"))
            if event is not None:
                found.append(event)
        return found

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000
        return None

    def _dispatch(self) -> Event | None:
        data, kind = "\n".join(self._data), self._kind
        self._data, self._kind = [], ""
        self.last_id = self._id
        if not data or kind not in ("task", "hello", "reset"):
            return None
        task = _task(Answer(200, {}, data.encode())) if kind == "task" else None
        return Event(self._id, kind, task)
