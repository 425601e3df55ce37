"""What a store's URL means: which database, and the claim on a SQLite file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError

SETTING = "TASKMILL_STORE_URL"
#: Files of one process: a POSIX lock would not refuse them.
_claimed: set[Path] = set()


class Address(NamedTuple):
    """`url` is SQLAlchemy's; `file` is SQLite's, None where it is PostgreSQL; `shown` has no
    password."""

    url: URL
    file: Path | None
    shown: str


def store_url(settings: Settings) -> str:
    """The URL that the settings mean."""
    return settings.store_url or f"sqlite:///{settings.state_dir / 'console.db'}"


def address_of(text: str) -> Address:
    """Raises ConfigError for a URL that is none of ours."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"{SETTING}: begins with sqlite:/// or postgresql://, and is a URL"
        ) from None
    if url.drivername == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError(f"{SETTING}: sqlite:///path, the path of a file")
        file = Path(url.database).expanduser().resolve()
        return Address(url.set(database=str(file)), file, str(file))
    if url.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        ours = url.set(drivername="postgresql+psycopg")
        shown = f"{url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"
        return Address(ours, None, shown)
    raise ConfigError(f"{SETTING}: begins with sqlite:/// or postgresql://")


class FileClaim:
    """The exclusive right to a SQLite store: one console a file. The kernel drops it with the
    process. Raises ConfigError where the file cannot be used, or is in use."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd = -1
        if file in _claimed:
            raise self._taken()
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"store {file}: {error.strerror}") from None
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise self._taken() from None
        _claimed.add(file)

    def _taken(self) -> ConfigError:
        return ConfigError(
            f"store {self._file} is in use by another console: several need PostgreSQL ({SETTING})"
        )

    def release(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            _claimed.discard(self._file)
