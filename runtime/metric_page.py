"""Readings of one process or of many, as the metrics of one page."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from taskmill.runtime.meter import Reading
from taskmill.runtime.metric_table import BUCKETS, METRICS

_BOUNDS = (*map(floatToGoString, BUCKETS), "+Inf")


def merged(readings: Iterable[Reading]) -> Reading:
    """Several processes as one: counts are added up, gauges as their row says."""
    whole: Reading = {}
    for reading in readings:
        for key, cells in reading.items():
            old = whole.get(key)
            if old is None:
                whole[key] = cells
            elif METRICS[key[0]].merge == "max":
                whole[key] = max(old, cells)
            else:
                whole[key] = tuple(map(sum, zip(old, cells, strict=True)))
    return whole


def counts_of(reading: Reading) -> Reading:
    """What of a process's reading stays true once it has ended: not its gauges."""
    lasting = ("counter", "histogram")
    return {key: cells for key, cells in reading.items() if METRICS[key[0]].kind in lasting}


class Page(Collector):
    """The metrics that `read` finds, for a Prometheus registry."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Asked when it is registered: what there is shows when it is scraped."""
        return ()

    def collect(self) -> Iterable[Metric]:
        by_name: dict[str, dict[tuple[str, ...], tuple[float, ...]]] = {}
        for (name, labels), cells in self._read().items():
            by_name.setdefault(name, {})[labels] = cells
        for name in METRICS:
            if name in by_name:
                yield _family(name, by_name[name])


def _family(name: str, series: dict[tuple[str, ...], tuple[float, ...]]) -> Metric:
    row = METRICS[name]
    if row.kind == "histogram":
        histogram = HistogramMetricFamily(name, row.text, labels=row.labels)
        for labels, cells in series.items():
            histogram.add_metric(labels, _cumulative(cells[:-1]), cells[-1])
        return histogram
    kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family = kind(name, row.text, labels=row.labels)
    for labels, cells in series.items():
        family.add_metric(labels, 1.0 if row.kind == "info" else cells[0])
    return family


def _cumulative(counts: tuple[float, ...]) -> list[tuple[str, float]]:
    rows, so_far = [], 0.0
    for bound, count in zip(_BOUNDS, counts, strict=True):
        so_far += count
        rows.append((bound, so_far))
    return rows
