"""The way in: task definitions, argument validation, enqueueing, handles."""
