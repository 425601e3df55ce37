"""The pages of docs/ work as written, on a real Kafka: each block, in the order of its page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from support.blocks import DOCS, blocks, pages, steps
from support.brokers import quiet_port
from support.postgres import Postgres
from taskmill.consumer.outcomes_table import CREATE
from taskmill.runtime.config import Settings

RUNNER = Path(__file__).parents[1] / "support" / "page_run.py"
PAGES = [page for page in pages() if page.is_relative_to(DOCS) and steps(page)]


@pytest.mark.kafka
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_page_works_as_written(page: Path, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    port = quiet_port()
    text = json.dumps(steps(page))
    for written, here in (
        ("localhost:9092", str(settings.bootstrap_servers)),
        ("127.0.0.1:8420", f"127.0.0.1:{port}"),
        ("taskmill.tasks.default", f"{settings.prefix}.tasks.default"),
    ):
        text = text.replace(written, here)
    (tmp_path / "steps.json").write_text(text, encoding="utf-8")
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONWARNINGS": "error",
        "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "TASKMILL_PREFIX": settings.prefix,
        "TASKMILL_PARTITIONS": str(settings.partitions),
        "TASKMILL_STATE_DIR": str(settings.state_dir),
        "TASKMILL_CONSOLE_PORT": str(port),
    }
    command = [sys.executable, "-P", str(RUNNER), str(tmp_path / "steps.json")]
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=said, stderr=said)
        try:
            code = process.wait(100)
        finally:
            process.kill()
    assert code == 0, (tmp_path / "said.txt").read_text()


@pytest.mark.postgres
def test_the_sql_of_docs_is_sql(postgres: Postgres, database: str) -> None:
    statements = [b.text for page in pages() for b in blocks(page) if b.language == "sql"]
    assert statements
    with psycopg.connect(database) as connection:
        connection.execute(CREATE)
        for statement in statements:
            connection.execute(statement)
