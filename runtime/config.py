"""The settings: `TASKMILL_…` in the environment over `taskmill.toml` over defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import ConfigError

#: What Kafka allows in a topic name, less the dot that separates our own parts of it.
NAME = re.compile(r"[a-zA-Z0-9_-]{1,100}\Z")
#: A retry tier: a wait, and the end of its topic's name.
TIER = re.compile(r"\d{1,9}(ms|s|m|h|d)", re.ASCII)
_SECRET = re.compile(
    r"password|passphrase|secret|token|\.pem$|key\.pem|sasl\.oauthbearer\.config|basic\.auth"
)
#: Up to the last @: a password may hold one, or a slash, though it should be written as %XX.
_URL_LOGIN = re.compile(r"(://)\S*@")
_URL_PASSWORD = re.compile(r"([?&](?:ssl)?password=)[^&\s]*")
MASK = "********"

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
#: How long finished tasks stay on their topic where nobody says otherwise: a week to look into, or
#: to replay.
_TASKS_RETENTION_MS = 7 * _DAY_MS


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/taskmill`, by the XDG base directory specification."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "taskmill"


class Settings(BaseSettings):
    """All settings of every role. Frozen: made once, passed in, never read from elsewhere."""

    model_config = SettingsConfigDict(
        env_prefix="TASKMILL_",
        env_nested_delimiter="__",
        env_nested_max_split=1,
        toml_file="taskmill.toml",
        frozen=True,
        extra="forbid",
    )

    bootstrap_servers: str | None = Field(
        default=None,
        description="Kafka's bootstrap addresses, host:port[,host:port]. Unset: the local broker "
        "that `taskmill broker up` runs, else localhost:9092.",
    )
    prefix: str = Field(
        default="taskmill", description="What every topic, group and ID starts with."
    )
    state_dir: Path = Field(
        default_factory=default_state_dir, description="Local stores, slots and the local broker."
    )
    partitions: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=12, description="Partitions of a queue's topics, when taskmill creates them."
    )
    replication_factor: Annotated[int, Field(ge=1, le=15)] | None = Field(
        default=None, description="Unset: 3 where the cluster has three brokers, else 1."
    )
    dedup_window_ms: Annotated[int, Field(ge=60_000)] = Field(
        default=(8 * 24 + 6) * 3_600_000,
        description="How long a finished ID stays a duplicate (8 d 6 h).",
    )
    tasks_retention_ms: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Workers delete finished tasks of this age from their topic; 0: as soon as "
        "they are committed. Unset: 7 d, or what a shorter dedup_window_ms leaves room for.",
    )
    enqueue_timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=30.0, description="An enqueue not acknowledged by then fails as Unreachable."
    )
    max_task_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = Field(
        default=1_000_000, description="Largest encoded task that is accepted."
    )
    group_protocol: Literal["auto", "classic", "consumer"] = Field(
        default="auto",
        description="How workers share partitions: KIP-848 (consumer), classic, or the better "
        "one for the broker at hand.",
    )
    oldest_worker: Literal["0.1", "0.2"] | None = Field(
        default=None,
        description="Version of workers that still run beside these, while one upgrades: what they "
        "have to read is written as they read it (docs/upgrade.md). Unset: there are none.",
    )
    crash_loop_limit: Annotated[int, Field(ge=2)] = Field(
        default=3,
        description="A task in flight at so many sudden ends of its worker is dead-lettered. One "
        "end says nothing yet: whatever was fetched may have been in flight.",
    )
    retry_tiers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("1s", "10s", "1m", "10m"),
        description="Waits before a next attempt, a topic each: 1s,10s,1m,10m. Others round up to "
        "one of these; a longer one than the last passes that more than once.",
    )
    timeout_grace_ms: Annotated[int, Field(ge=0, le=3_600_000)] = Field(
        default=5_000,
        description="How long a handler may clean up once its time is over. One that still runs "
        "then is left behind; its process, where it has one of its own, is killed.",
    )
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None, description="Serve Prometheus metrics here. Unset: do not. 0: any free port."
    )
    schema_registry_url: str | None = Field(
        default=None, description="Produce Confluent's wire format through this registry."
    )
    outcomes_url: str | None = Field(
        default=None,
        description='PostgreSQL of the tasks declared effects="postgresql": '
        "postgresql://user:password@host:port/database.",
    )
    outcomes_connections: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=20,
        description="Such tasks that run at once in a worker process, a connection each: so many "
        "coroutines, and so many threads.",
    )
    store_url: str | None = Field(
        default=None,
        description="The console's store: sqlite:///path or postgresql://user:password@host:port/"
        "database. Unset: console.db in state_dir.",
    )
    console_host: str = Field(
        default="127.0.0.1", description="Address that the console listens on; 0.0.0.0: all."
    )
    console_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8420, description="The console's port. 0: any free one."
    )
    api_url: str | None = Field(
        default=None,
        description="A console's address: commands and handles ask it, not Kafka. Where "
        "bootstrap_servers is unset, tasks are enqueued by it, too.",
    )
    api_token: str | None = Field(default=None, description="The token for api_url.")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: str = Field(
        default="text",
        description="text; json: an object a line, with the task and the trace it is about.",
    )
    kafka: dict[str, str] = Field(
        default_factory=dict,
        description="Any librdkafka setting: TASKMILL_KAFKA__SECURITY_PROTOCOL=SSL sets "
        "security.protocol.",
    )

    @property
    def is_by_console(self) -> bool:
        """Whether tasks are enqueued by a console: one is named, and no Kafka is."""
        return self.api_url is not None and self.bootstrap_servers is None

    @field_validator("kafka", mode="before")
    @classmethod
    def _dotted(cls, value: object) -> object:
        return dict(_flat(value)) if isinstance(value, Mapping) else value

    @field_validator("kafka")
    @classmethod
    def _no_second_address(cls, value: dict[str, str]) -> dict[str, str]:
        for name in ("bootstrap.servers", "metadata.broker.list"):
            if name in value:
                raise ValueError(f"{name} is set by TASKMILL_BOOTSTRAP_SERVERS")
        return value

    @field_validator("retry_tiers", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(one.strip() for one in value.split(",")) if isinstance(value, str) else value

    @field_validator("retry_tiers")
    @classmethod
    def _rising(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for tier in value:
            if not TIER.fullmatch(tier):
                raise ValueError(
                    f"{tier!r:.40}: a tier is a whole number and one of ms, s, m, h, d"
                )
        lengths = [parse_duration(tier) for tier in value]
        if not value or lengths != sorted(set(lengths)) or lengths[0] <= 0 or lengths[-1] > 86_400:
            raise ValueError("one or more waits up to 1d, each longer than the one before")
        return value

    @field_validator("bootstrap_servers")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("state_dir")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError("1 to 100 letters, digits, '-' or '_'")
        return value

    @field_validator("outcomes_url")
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("begins with postgresql://")
        return value

    @field_validator("store_url")
    @classmethod
    def _store(cls, value: str | None) -> str | None:
        allowed = ("sqlite:///", "postgresql://", "postgres://")
        if value is not None and not value.startswith(allowed):
            raise ValueError("begins with sqlite:/// or postgresql://")
        return value

    @field_validator("api_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            shown = "" if "@" in value else f"{value!r:.60}: "
            raise ValueError(f"{shown}an address begins with http:// or https://")
        return value

    @field_validator("tasks_retention_ms")
    @classmethod
    def _inside_the_window(cls, value: int | None, info: ValidationInfo) -> int | None:
        window = info.data.get("dedup_window_ms")  # absent where it is wrong itself
        if value is not None and window is not None and value > _longest_tasks_retention_ms(window):
            raise ValueError(
                f"at most {_longest_tasks_retention_ms(window)} with dedup_window_ms={window}, or "
                "a task that still lies on its topic could be forgotten, and run again"
            )
        return value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("one of DEBUG, INFO, WARNING, ERROR")
        return value.upper()

    @field_validator("log_format")
    @classmethod
    def _format(cls, value: str) -> str:
        if value.lower() not in {"text", "json"}:
            raise ValueError("text or json")
        return value.lower()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def finished_tasks_age_ms(self) -> int:
        """`tasks_retention_ms`, or what holds where it is unset."""
        if self.tasks_retention_ms is not None:
            return self.tasks_retention_ms
        return min(_TASKS_RETENTION_MS, _longest_tasks_retention_ms(self.dedup_window_ms))

    def masked(self) -> dict[str, Any]:
        """All settings as plain values, secrets masked."""
        out: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, tuple):
                value = ",".join(value)
            out[name] = str(value) if isinstance(value, Path) else value
            if isinstance(value, str):
                login = _URL_LOGIN.sub(rf"\1{MASK}@", value)
                out[name] = _URL_PASSWORD.sub(rf"\1{MASK}", login)
        if self.api_token is not None:
            out["api_token"] = MASK
        out["kafka"] = {k: MASK if _SECRET.search(k) else v for k, v in self.kafka.items()}
        return out

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{k}={v!r}' for k, v in self.masked().items())})"

    __str__ = __repr__


def table_segment_ms(window_ms: int) -> int:
    """How long a segment of a table's topic stays open: short, and several to a short window."""
    return min(6 * _HOUR_MS, window_ms // 4)


def _longest_tasks_retention_ms(window_ms: int) -> int:
    """What lies on `tasks` must still be known to the table, also where its deletion is late: by a
    segment, and by a day without a worker (of a short window, by a quarter of it)."""
    return window_ms - table_segment_ms(window_ms) - min(_DAY_MS, window_ms // 4)


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and `taskmill.toml`; `overrides` win where not None.

    Raises ConfigError, one line that names the setting and what is wrong with it.
    """
    try:
        return Settings(**{k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "__".join(str(part) for part in first["loc"]) or "settings"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"setting {name} (TASKMILL_{name.upper()}): {message}") from None
    except ValueError as error:
        raise ConfigError(f"settings: {error}") from None


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """librdkafka's own names, whether written `a_b` (a variable), `"a.b"` or `a.b` (TOML)."""
    for key, value in settings.items():
        name = above + str(key).lower().replace("_", ".")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            # The one setting of librdkafka's that has an underscore.
            name = "log_level" if name == "log.level" else name
            yield name, str(value).lower() if isinstance(value, bool) else str(value)


def setting_origins(settings: Settings) -> dict[str, str]:
    """Where each setting came from: `environment`, `taskmill.toml`, `default` (or `given`)."""
    cls = type(settings)
    from_toml = TomlConfigSettingsSource(cls)()
    origins = {}
    for name in cls.model_fields:
        if _variables_of(name):
            origins[name] = "environment"
        elif name in from_toml:
            origins[name] = "taskmill.toml"
        else:
            origins[name] = "given" if name in settings.model_fields_set else "default"
    return origins


def unknown_variables() -> list[str]:
    """TASKMILL_ variables in the environment that no setting reads: misspelt, most likely.

    TASKMILL_TEST_… are the test suite's own.
    """
    known = {name for field in Settings.model_fields for name in _variables_of(field)}
    ours = [name for name in os.environ if name.upper().startswith("TASKMILL_")]
    tests = "TASKMILL_TEST_"
    return sorted(n for n in ours if n not in known and not n.upper().startswith(tests))


def _variables_of(field: str) -> list[str]:
    name = f"TASKMILL_{field.upper()}"
    return [v for v in os.environ if v.upper() == name or v.upper().startswith(f"{name}__")]


def check_queue(name: str) -> str:
    """`name` if it may be a queue's name, else ConfigError."""
    if not NAME.match(name):
        raise ConfigError(f"queue {name!r}: a queue's name is 1 to 100 letters, digits, '-' or '_'")
    return name
