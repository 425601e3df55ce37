"""The status store: what the console knows of tasks, in SQLite or PostgreSQL; a cache of Kafka."""
