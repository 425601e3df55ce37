"""How soon the broker misses a member of a group."""

from __future__ import annotations

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

#: Under KIP-848 the broker says when a member is gone. Less than its 6 s makes more points; the
#: classic protocol has no group of its own time, 6 s is the broker's least.
SESSION_MS, HEARTBEAT_MS = 3_000, 500


def shorten_session(bootstrap: str, group: str) -> None:
    """Let the broker miss this KIP-848 group's members after SESSION_MS."""
    entries = [
        ConfigEntry(f"consumer.{name}", str(ms), incremental_operation=AlterConfigOpType.SET)
        for name, ms in (
            ("session.timeout.ms", SESSION_MS),
            ("heartbeat.interval.ms", HEARTBEAT_MS),
        )
    ]
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(10)
