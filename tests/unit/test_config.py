"""Settings: what wins, what is refused and how it is said, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from taskmill.runtime.config import (
    MASK,
    Settings,
    check_queue,
    load_settings,
    setting_origins,
    table_segment_ms,
    unknown_variables,
)
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.kafka import client_config


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("taskmill.toml").write_text('prefix = "file"\npartitions = 3\n')
    monkeypatch.setenv("TASKMILL_PREFIX", "environment")
    settings = load_settings()
    assert (settings.prefix, settings.partitions, settings.max_task_bytes) == (
        "environment",
        3,
        1_000_000,
    )
    origins = setting_origins(settings)
    assert origins["prefix"] == "environment"
    assert origins["partitions"] == "taskmill.toml"
    assert origins["max_task_bytes"] == "default"


def test_any_kafka_setting_is_taken_from_variables_and_from_every_way_of_writing_toml(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("taskmill.toml").write_text(
        '[kafka]\n"sasl.username" = "a"\n'
        'security.protocol = "SSL"\nsocket_keepalive_enable = true\n'
    )
    monkeypatch.setenv("TASKMILL_KAFKA__SASL_USERNAME", "b")
    assert load_settings().kafka == {
        "sasl.username": "b",
        "security.protocol": "SSL",
        "socket.keepalive.enable": "true",
    }


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PARTITIONS", "0", "greater than or equal to 1"),
        ("PARTITIONS", "many", "valid integer"),
        ("PREFIX", "a.b", "letters, digits, '-' or '_'"),
        ("TASKS_RETENTION_MS", "-1", "greater than or equal to 0"),
        ("TASKS_RETENTION_MS", "604800001", "at most 604800000 with dedup_window_ms=712800000"),
        ("LOG_LEVEL", "loud", "one of DEBUG, INFO, WARNING, ERROR"),
        ("GROUP_PROTOCOL", "raft", "'auto', 'classic' or 'consumer'"),
        ("KAFKA", "{", "kafka"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_it_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"TASKMILL_{name}", value)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    message = str(refused.value)
    assert name.lower() in message
    assert says in message
    assert "\n" not in message
    assert not message.startswith("Value error")


@pytest.mark.parametrize("text", ["partitions = ", 'colour = "red"'])
def test_a_wrong_settings_file_is_refused_in_one_line(text: str) -> None:
    Path("taskmill.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    assert "\n" not in str(refused.value)


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    settings = Settings(
        kafka={
            "sasl.password": "hunter2",
            "ssl.key.pem": "hunter2",
            "sasl.oauthbearer.assertion.private.key.passphrase": "hunter2",
            "sasl.username": "me",
        },
        schema_registry_url="https://me:hunter2@registry/path",
        store_url="postgresql://me:hunter2@host/db",
        api_token="hunter2",
        bootstrap_servers="host:9092",
    )
    for text in (repr(settings), str(settings), str(settings.masked())):
        assert "hunter2" not in text
        assert MASK in text
    assert settings.masked()["kafka"]["sasl.username"] == "me"
    assert settings.masked()["schema_registry_url"] == f"https://{MASK}@registry/path"
    assert settings.masked()["bootstrap_servers"] == "host:9092"


def test_the_address_is_set_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_KAFKA__BOOTSTRAP_SERVERS", "elsewhere:9092")
    with pytest.raises(ConfigError, match="is set by TASKMILL_BOOTSTRAP_SERVERS"):
        load_settings()


def test_an_empty_address_is_none() -> None:
    assert Settings(bootstrap_servers="").bootstrap_servers is None


def test_a_state_dir_may_begin_with_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    assert Settings(state_dir=Path("~/mill")).state_dir == Path("/somebody/mill")


@pytest.mark.parametrize("window", [60_000, 3_600_000, 86_400_000, 712_800_000, 10**12])
def test_what_lies_on_the_tasks_topic_is_forgotten_long_after_it_went(window: int) -> None:
    day = 86_400_000
    unset = Settings(dedup_window_ms=window).finished_tasks_age_ms
    assert 0 < unset <= 7 * day
    assert Settings(dedup_window_ms=window, tasks_retention_ms=unset).finished_tasks_age_ms == unset
    assert window - unset - table_segment_ms(window) >= min(day, window // 4)


def test_finished_tasks_stay_a_week_unless_set_otherwise() -> None:
    assert Settings().finished_tasks_age_ms == 7 * 86_400_000
    assert Settings(tasks_retention_ms=0).finished_tasks_age_ms == 0


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().prefix = "other"  # type: ignore[misc]


def test_a_misspelt_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_BOOTSTRAP_SERVER", "x:1")
    monkeypatch.setenv("TASKMILL_KAFKA__SASL_USERNAME", "me")
    monkeypatch.setenv("TASKMILL_PREFIX", "p")
    unknown = [name for name in unknown_variables() if not name.startswith("TASKMILL_TEST_")]
    assert unknown == ["TASKMILL_BOOTSTRAP_SERVER"]


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ä", "x" * 101, "a\n"])
def test_a_queue_name_that_kafka_or_our_topics_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        check_queue(name)


def test_a_kafka_setting_that_our_promises_rest_on_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"kafka\.acks"):
        client_config(Settings(kafka={"acks": "1"}), "test")


def test_the_users_kafka_settings_stand_over_our_defaults_and_below_the_roles_needs(
    tmp_path: Path,
) -> None:
    settings = Settings(
        state_dir=tmp_path, kafka={"socket.nagle.disable": "false", "linger.ms": "7"}
    )
    config = client_config(settings, "test", linger_ms=0)
    assert config["socket.nagle.disable"] == "false"
    assert config["linger.ms"] == 0
    assert config["bootstrap.servers"] == "localhost:9092"


def test_one_sudden_end_is_no_crash_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_CRASH_LOOP_LIMIT", "1")
    with pytest.raises(ConfigError, match=r"crash_loop_limit.*greater than or equal to 2"):
        load_settings()
