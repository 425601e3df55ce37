"""What the queries of lists may say; a parameter that is none of these is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from taskmill.console.api.models import DEFAULT_PAGE, MAX_PAGE, QueueName, TaskId
from taskmill.schemas.states import Status

_FEW = Field(max_length=50)
#: A word that the store looks for.
Word = Annotated[str, Field(max_length=512)]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]
Moment = Annotated[
    str, Field(max_length=64, description='A time ago ("1h"), or ISO 8601, in UTC by default.')
]
Cursor = Annotated[str, Field(description="What `next` of the page before said.")]


class Asked(BaseModel):
    """Closed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OneTask(Asked):
    """Which queue's."""

    queue: QueueName = "default"


class CancelOf(OneTask):
    """… and whether it need not be known."""

    unseen: Annotated[
        bool,
        Field(description="Of an ID that is not known, too: what comes under it later is not run."),
    ] = False


class ResultOf(OneTask):
    """… and how long to wait for its end."""

    wait: Annotated[str, Field(max_length=32, description="0s to 60s.")] = "0s"


class ChangesOf(Asked):
    """Which tasks a stream tells of. Each may be there more than once."""

    status: Annotated[list[Status], _FEW] = []
    name: Annotated[list[Word], _FEW] = []
    queue: Annotated[list[QueueName], _FEW] = []


class TasksOf(ChangesOf):
    """Which tasks a list shows. Times are of when they were enqueued."""

    since: Moment | None = None
    until: Moment | None = None
    prefix: Annotated[TaskId | None, Field(description="What their IDs begin with.")] = None
    parent: Annotated[TaskId | None, Field(description="The task that enqueued them.")] = None
    limit: Limit = DEFAULT_PAGE
    cursor: Cursor | None = None


class GroupsOf(Asked):
    """Which dead letters are meant. Times are of when they died."""

    queue: Annotated[list[QueueName], _FEW] = []
    name: Annotated[list[Word], _FEW] = []
    reason: Annotated[list[Word], _FEW] = []
    fingerprint: Annotated[list[Word], _FEW] = []
    error: Annotated[Word | None, Field(description='Part of "type: message".')] = None
    id: TaskId | None = None
    since: Moment | None = None
    until: Moment | None = None
    replayed: Annotated[bool, Field(description="Those that were replayed as well.")] = False


class LettersOf(GroupsOf):
    """… a page of them."""

    limit: Limit = DEFAULT_PAGE
    cursor: Cursor | None = None


class OverviewOf(Asked):
    """How far back."""

    minutes: Annotated[int, Field(ge=1, le=1440)] = 60


class ReplaysOf(OneTask):
    """Of which queue."""
