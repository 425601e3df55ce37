"""The window: status store, HTTP API, dashboard. Nothing is in it yet."""
