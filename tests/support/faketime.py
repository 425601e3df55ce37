"""A wall clock that a test steps while a process runs: libfaketime, the process's own alone."""

from __future__ import annotations

from pathlib import Path


class SteppedClock:
    """`environment` gives a process this clock; `step` moves it, its monotonic one goes on."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        assert found, "apt-get install libfaketime"
        self._file = folder / "faketime"
        self.step(0)
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # The file is read once a second; the monotonic clock is not faked.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its work-around for an old glibc makes timed waits of a JVM much too short.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def step(self, seconds: int) -> None:
        """The wall clock is so far ahead of the machine's from now on."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self._file)
