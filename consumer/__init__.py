"""The work: the commit protocol, the idempotency table, executors, dead letters."""
