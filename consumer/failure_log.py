"""Logs what failed for good, and of what is tried again a sample: middleware of every worker."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from taskmill.consumer.record import Outcome
from taskmill.consumer.task_fields import fields_of
from taskmill.producer.middleware import Middleware
from taskmill.schemas.states import Status

logger = logging.getLogger("taskmill.worker")


class FailureLog(Middleware):
    """Logs each task that ended dead, once that is final: what, why, and where it went. Of those to
    be tried again one of each batch: there may be thousands a second."""

    def after_commit(self, outcomes: Sequence[Outcome]) -> None:
        retried = next((one for one in outcomes if one.retry_ms is not None), None)
        if retried is not None:
            _tell_retry(retried)
        for outcome in outcomes:
            if outcome.status is Status.DEAD and outcome.failure is not None:
                task, failure = outcome.record.task, outcome.failure
                logger.warning(
                    "dead letter (%s): task %s of %s: %s: %s%s",
                    failure.reason,
                    task.id if task is not None else outcome.record.mark_key[1:].decode(),
                    task.name if task is not None else "unknown name",
                    failure.error.type,
                    failure.error.message,
                    f"\n{failure.stack}" if failure.stack else "",
                    extra=fields_of(outcome.record),
                )


def _tell_retry(outcome: Outcome) -> None:
    task, failure = outcome.record.task, outcome.failure
    assert task is not None, "only a task is tried again"
    assert failure is not None, "only what failed is tried again"
    logger.info(
        "attempt %d of task %s of %s failed (%s), again in %g s or more: %s: %s",
        task.attempt,
        task.id,
        task.name,
        failure.reason,
        (outcome.retry_ms or 0) / 1000,
        failure.error.type,
        failure.error.message,
        extra=fields_of(outcome.record),
    )
