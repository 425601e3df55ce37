"""Records of every shape for hypothesis, and one plain example of each."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from taskmill.schemas.models import CANCEL, JSON, Control, Task, TaskError, TaskResult, TaskState
from taskmill.schemas.states import Status

#: 2026-01-02T03:04:05.678Z
NOW_MS = 1_767_323_045_678

TASK = Task(
    id="receipt:1",
    name="send_receipt",
    payload=b'{"order_id":1,"email":"a@b.c"}',
    content_type=JSON,
    enqueued_at=NOW_MS,
)
STATE = TaskState(
    id="receipt:1",
    name="send_receipt",
    queue="default",
    status=Status.SUCCEEDED,
    generation=0,
    seq=0,
    attempt=1,
    worker="host-1",
    enqueued_at=NOW_MS,
    started_at=NOW_MS + 3,
    finished_at=NOW_MS + 25,
    next_attempt_at=None,
    result=b'{"sent":true}',
    content_type=JSON,
    error=None,
    source_partition=7,
    source_offset=123_456,
    large=None,
)
RESULT = TaskResult(
    id="receipt:1", generation=0, seq=0, result=b'{"lines":[1,2,3]}', content_type=JSON
)

CONTROL = Control(id="receipt:1", action=CANCEL, requested_at=NOW_MS, name="send_receipt")

counts = st.integers(0, 2**31 - 1)
longs = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
#: Three bytes of UTF-8 a character at the most, so 170 are within every limit.
ids = st.text(
    st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), min_size=1, max_size=170
)
names = ids.map(lambda text: text[:85])
payloads = st.binary(max_size=300) | st.sampled_from(
    [*range(9000), *range(2**20 - 9, 2**20 + 9)]
).map(bytes)


def _or_none(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


#: Nothing optional is set: the shape that has its own path in the codec.
plain_tasks = st.tuples(ids, names, payloads, st.just(JSON), longs).map(lambda five: Task(*five))
any_tasks = st.builds(
    Task,
    id=ids,
    name=names,
    payload=payloads,
    content_type=st.just(JSON) | texts,
    enqueued_at=longs,
    not_before=_or_none(longs),
    expires_at=_or_none(longs),
    deadline=_or_none(longs),
    timeout_ms=_or_none(st.integers(1, 2**63 - 1)),
    max_attempts=_or_none(st.integers(1, 2**31 - 1)),
    attempt=st.integers(1, 2**31 - 1),
    generation=counts,
    seq=counts,
    lock_key=_or_none(ids),
    parent_id=_or_none(ids),
    headers=st.dictionaries(texts, texts, max_size=3),
)
tasks = plain_tasks | any_tasks
errors = st.builds(TaskError, texts, texts, texts)
states = st.builds(
    TaskState,
    id=ids,
    name=texts,
    queue=texts,
    status=st.sampled_from(Status),
    generation=counts,
    seq=counts,
    attempt=counts,
    worker=texts,
    enqueued_at=longs,
    started_at=_or_none(longs),
    finished_at=_or_none(longs),
    next_attempt_at=_or_none(longs),
    result=_or_none(st.binary(max_size=1500)),
    content_type=_or_none(texts),
    error=_or_none(errors),
    source_partition=counts,
    source_offset=longs,
    large=_or_none(texts),
    deliveries=st.just(0) | counts,
    saved=_or_none(st.binary(max_size=300)),
    result_expires_at=_or_none(longs),
)
results = st.builds(
    TaskResult,
    id=ids,
    generation=counts,
    seq=counts,
    result=_or_none(st.binary(max_size=300)),
    content_type=_or_none(texts),
    error=_or_none(errors),
    stack=_or_none(texts),
)
controls = st.builds(
    Control,
    id=ids,
    action=names,
    requested_at=longs,
    generation=_or_none(counts),
    name=_or_none(names),
    not_before=_or_none(longs),
    seq=_or_none(counts),
    due_at=_or_none(longs),
    enqueued_at=_or_none(longs),
    actor=_or_none(names),
)
