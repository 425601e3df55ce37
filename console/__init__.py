"""The window: status store, HTTP API, dashboard."""
