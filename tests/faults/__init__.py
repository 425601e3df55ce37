"""Faults on a real broker: at seeded moments something breaks, and the history must hold."""
