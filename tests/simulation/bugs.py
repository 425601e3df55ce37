"""Planted mistakes, by name: each is one rule broken, and must be seen."""

from __future__ import annotations

import re

from simulation.bug import Bug
from simulation.bugs_of_protocol import (
    AbandonedRunsAgain,
    AtWorkUnsaid,
    CrashesUncounted,
    FetchBeforeRestored,
    LostOutcomesKept,
    OldMarkBehindNew,
    OverlapIgnored,
    PausedInNameOnly,
    RunningBehindTerminal,
    StartBeforeMark,
    TerminalIgnored,
    UnmarkedIsUncommitted,
    UnmovedOffsetsLeftOut,
    WatermarkOffByOne,
)
from simulation.bugs_of_worker import (
    AlwaysFollows,
    DeliverBeforeSeek,
    EndBeforeOffset,
    FreshMetadata,
    MarkBeforeCommit,
    OffsetsWithoutMarks,
    ProducerReused,
    RandomTransactionalId,
    RestoreToStableEnd,
    UnknownIsAborted,
    UnknownIsCommitted,
)

#: The ten that a proof is not without, by the names that its table has them under.
TEN: dict[str, type[Bug]] = {
    "mark before commit": MarkBeforeCommit,
    "offsets without marks": OffsetsWithoutMarks,
    "fresh metadata at commit": FreshMetadata,
    "random transactional.id": RandomTransactionalId,
    "restore to the LSO": RestoreToStableEnd,
    "outcome of a lost epoch kept": LostOutcomesKept,
    "watermark off by one": WatermarkOffByOne,
    "overlap ignored": OverlapIgnored,
    "terminal entry ignored": TerminalIgnored,
    "producer reused after an unknown outcome": ProducerReused,
}

PLANTED: dict[str, type[Bug]] = {
    bug.__name__: bug
    for bug in (
        MarkBeforeCommit,
        OffsetsWithoutMarks,
        FreshMetadata,
        RestoreToStableEnd,
        EndBeforeOffset,
        ProducerReused,
        UnknownIsAborted,
        UnknownIsCommitted,
        RandomTransactionalId,
        DeliverBeforeSeek,
        AlwaysFollows,
        LostOutcomesKept,
        WatermarkOffByOne,
        UnmovedOffsetsLeftOut,
        OverlapIgnored,
        TerminalIgnored,
        FetchBeforeRestored,
        PausedInNameOnly,
        UnmarkedIsUncommitted,
        OldMarkBehindNew,
        StartBeforeMark,
        RunningBehindTerminal,
        CrashesUncounted,
        AtWorkUnsaid,
        AbandonedRunsAgain,
    )
}


def named(bug: type[Bug]) -> str:
    """`bug` in the words of the proof's table."""
    told = {known: name for name, known in TEN.items()}
    return told.get(bug) or re.sub(r"(?<!^)(?=[A-Z])", " ", bug.__name__).lower()
