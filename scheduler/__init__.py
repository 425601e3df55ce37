"""The calendar: what waits for its time, and passes on what has come."""
