"""The `taskmill` command: one file a group of commands."""
