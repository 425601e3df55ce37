"""A role's metrics page as its reader sees it, and its probes."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """The page at `port`, fetched anew by `fetch`; a wait looks every 50 ms."""

    def __init__(self, port: int | str) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def fetch(self) -> Scraped:
        with urllib.request.urlopen(f"{self._address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        self.values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        return self

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of `name` with these labels, as fetched last."""
        wanted = set(labels.items())
        return sum(v for (n, found), v in self.values.items() if n == name and wanted <= found)

    def labels(self, name: str, label: str) -> set[str]:
        """The values that `label` of `name` has."""
        return {dict(found)[label] for n, found in self.values if n == name}

    def until(self, true: Callable[[Scraped], bool], what: str, timeout_s: float = 30) -> Scraped:
        """Fetch until `true` of what was fetched."""
        deadline = time.monotonic() + timeout_s
        while not true(self.fetch()):
            assert time.monotonic() < deadline, f"no {what}: {self.values}"
            time.sleep(0.05)
        return self

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text of /healthz or /readyz."""
        try:
            with urllib.request.urlopen(f"{self._address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode().strip()

    def until_probe(self, path: str, status: int, timeout_s: float = 30) -> str:
        """Ask until it answers with `status`; the text."""
        deadline = time.monotonic() + timeout_s
        while (found := self.probe(path))[0] != status:
            assert time.monotonic() < deadline, f"{path} is {found}, not {status}"
            time.sleep(0.05)
        return found[1]
