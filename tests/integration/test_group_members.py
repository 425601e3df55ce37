"""Who is in a group, asked by a process of its own, which may die of the question."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.members import dying
from support.queues import Queue
from taskmill.consumer.admin import GROUPS, Admin
from taskmill.consumer.group_members import GroupMember, GroupMembers
from taskmill.consumer.membership import group_of
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]

LIMIT_S = 10.0


def test_a_worker_is_a_member_with_its_partitions_until_it_leaves(
    settings: Settings, tmp_path: Path
) -> None:
    group = group_of(settings.prefix, "default")
    assert Admin(settings).described(group) == ()
    with Queue(settings, tmp_path) as queue:
        worker = queue.add()
        worker.wait_ready(2)
        (member,) = Admin(settings).described(group)
        assert member.partitions == (0, 1)
        assert Admin(settings).members(group) == [f"{member.client_id} (127.0.0.1)"]
        # A kill is as good as an abort: the next question is answered.
        pid = GROUPS.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert Admin(settings).described(group) == (member,)
        assert GROUPS.pid not in (None, pid)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert Admin(settings).described(group) == ()


def test_without_kafka_it_says_so(settings: Settings) -> None:
    away = settings.model_copy(update={"bootstrap_servers": "127.0.0.1:9"})
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        Admin(away, 2.0).described("any")


def test_who_asked_lives_on_when_the_question_kills(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskmill.consumer.group_members._BEGIN_S", 3.0)
    groups = GroupMembers(dying)
    assert groups.of(settings, "one", LIMIT_S) == (GroupMember("one", "there", (1, 2)),)
    with pytest.raises(Unreachable, match=r"group aborts \(the process that asked ended with -6\)"):
        groups.of(settings, "aborts", LIMIT_S)
    assert groups.of(settings, "two", LIMIT_S)[0].client_id == "two"
    with pytest.raises(TaskmillError, match="not for you"):
        groups.of(settings, "refused", LIMIT_S)
    with pytest.raises(Unreachable, match="gave no answer"):
        groups.of(settings, "hangs", 0.1)
    assert groups.of(settings, "three", LIMIT_S)[0].client_id == "three"
    groups.close()
