"""A Prometheus of a test's own, which scrapes every second and knows the alerts' rules."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml

from support.brokers import quiet_port
from support.deployment import DEPLOY, program

HOW = "deploy/system.sh --tests installs it (Debian: prometheus)"
RULES = DEPLOY / "alerts" / "taskmill.rules.yml"


class Series(NamedTuple):
    """A series of an answer: its labels, and its samples' values in order."""

    labels: dict[str, str]
    values: list[float]

    @property
    def has_data(self) -> bool:
        return any(math.isfinite(value) for value in self.values)


class Prometheus:
    """Scrapes `jobs` (name to port), each with the label `namespace`; killed at the end."""

    def __init__(self, folder: Path, jobs: Mapping[str, int], namespace: str) -> None:
        self._jobs = jobs
        self._url = f"http://127.0.0.1:{(port := quiet_port())}"
        self._log = folder / "prometheus.log"
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(_config(jobs, namespace)), encoding="utf-8")
        command = [
            program("prometheus", HOW),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)

    def wait_scraping(self, timeout_s: float = 30.0) -> Self:
        """Wait until every job answers it."""
        return self.until("sum(up)", len(self._jobs), timeout_s)

    def instant(self, expr: str) -> list[Series]:
        """What `expr` is now. Fails where it is no PromQL."""
        found = self._ask("query", query=expr)["result"]
        return [Series(one["metric"], [float(one["value"][1])]) for one in found]

    def over(self, expr: str, start: float, end: float) -> list[Series]:
        """What `expr` was in each second between two times (Unix, seconds)."""
        found = self._ask("query_range", query=expr, start=start, end=end, step=1)["result"]
        return [Series(s["metric"], [float(v) for _, v in s["values"]]) for s in found]

    def by(self, expr: str, label: str) -> dict[str, float]:
        """The values of `expr` now, by the value of a label."""
        return {one.labels[label]: one.values[0] for one in self.instant(expr)}

    def label_values(self, series: str, label: str) -> Sequence[str]:
        """The values that a label has in `series`."""
        found: list[str] = self._ask(f"label/{label}/values", **{"match[]": series})
        return found

    def until(self, expr: str, value: float, timeout_s: float = 30.0) -> Self:
        """Ask until `expr` is one series of this value."""
        deadline = time.monotonic() + timeout_s
        found: Any = None
        while True:
            try:
                found = [one.values[0] for one in self.instant(expr)]
                if found == [value]:
                    return self
            except OSError as error:  # it starts
                found = error
            said = self._log.read_text(encoding="utf-8")
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, f"{expr} is {found}, not {value}\n{said}"
            time.sleep(0.1)

    def _ask(self, what: str, **parameters: Any) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}/api/v1/{what}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)


def _config(jobs: Mapping[str, int], namespace: str) -> dict[str, Any]:
    scraped = [
        {
            "job_name": name,
            "static_configs": [
                {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": namespace}}
            ],
        }
        for name, port in jobs.items()
    ]
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": scraped,
    }
