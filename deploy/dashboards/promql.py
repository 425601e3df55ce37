"""What panels ask Prometheus: a metric's series under the dashboard's variables, and what is made
of them."""

from __future__ import annotations

from typing import NamedTuple

from taskmill.runtime.metric_table import METRICS, SUPERVISOR, WORKER

#: The window of rates: Grafana makes it wide enough for a scrape interval and a pixel.
WINDOW = "$__rate_interval"
_ENDS = ("_bucket", "_count", "_sum")


class Scope(NamedTuple):
    """Which variables, beside job and namespace, a dashboard has."""

    queue: bool = False
    task: bool = False
    instance: bool = False

    def of(self, name: str, *matchers: str) -> str:
        """The series of metric `name` that the variables select, and these matchers."""
        metric = METRICS[base(name)]
        chosen = ['namespace=~"$namespace"', 'job=~"$job"']
        if self.queue and "queue" in metric.labels:
            chosen.append('queue=~"$queue"')
        if self.queue and "topic" in metric.labels:
            chosen.append('topic=~".+[.](tasks|state|delayed)[.]$queue"')
        if self.task and "task" in metric.labels:
            chosen.append('task=~"$task"')
        if self.instance and {WORKER, SUPERVISOR} & set(metric.roles):
            chosen.append('instance=~"$instance"')
        return f"{name}{{{','.join([*chosen, *matchers])}}}"

    def rate(self, name: str, *matchers: str, by: str = "", window: str = WINDOW) -> str:
        """A counter's rate a second, added up over instances."""
        return f"sum{_by(by)} (rate({self.of(name, *matchers)}[{window}]))"

    def new(self, name: str, *matchers: str, by: str = "", window: str = "1h") -> str:
        """By how much a counter grew in `window`; 0, where it never counted anything."""
        grown = f"sum{_by(by)} (increase({self.of(name, *matchers)}[{window}]))"
        return grown if by else f"{grown} or vector(0)"

    def quantile(self, q: float, name: str, by: str = "", window: str = WINDOW) -> str:
        """A quantile of what a histogram saw within `window`."""
        buckets = self.rate(f"{name}_bucket", by=f"le, {by}" if by else "le", window=window)
        return f"histogram_quantile({q:g}, {buckets})"

    def buckets(self, name: str) -> str:
        """How many a histogram saw in each bucket, for a heatmap."""
        return f"sum by (le) (increase({self.of(name + '_bucket')}[{WINDOW}]))"

    def total(self, name: str, by: str = "") -> str:
        """A gauge whose instances each tell their own part."""
        return f"sum{_by(by)} ({self.of(name)})"

    def greatest(self, name: str, by: str = "") -> str:
        """A gauge whose instances tell the same truth, or a part of it: the greatest counts."""
        return f"max{_by(by)} ({self.of(name)})"

    def waiting(self, by: str = "") -> str:
        """Tasks that wait for their time, of which every scheduler tells all."""
        return f"sum{_by(by)} ({self.greatest('taskmill_waiting_tasks', 'queue, tier')})"

    def behind(self, by: str = "") -> str:
        """Records not yet done, of which workers and schedulers tell the same; `by` may be
        "queue", which is the end of the topic's name."""
        once = self.greatest("taskmill_consumer_lag", "topic, partition")
        if by == "queue":
            once = f'label_replace({once}, "queue", "$1", "topic", ".+[.]tasks[.](.+)")'
        return f"sum{_by(by)} ({once})"

    def success(self, by: str = "queue", window: str = WINDOW) -> str:
        """Of what ended, the share that ended well. Nothing, where nothing ended."""
        name = "taskmill_tasks_finished_total"
        ended = self.rate(name, 'outcome=~"succeeded|dead|expired"', by=by, window=window)
        failed = self.rate(name, 'outcome=~"dead|expired"', by=by, window=window)
        return f"1 - ({failed} or 0 * {ended}) / ({ended} > 0)"

    def commits_failed(self, by: str = "queue") -> str:
        """Of all transactions, the share that was not committed. Nothing, where there was none."""
        done = self.rate("taskmill_commit_seconds_count", by=by)
        failed = f"({self.rate('taskmill_commit_failures_total', by=by)} or 0 * {done})"
        return f"{failed} / ({failed} + {done} > 0)"


def base(name: str) -> str:
    """The metric that a histogram's series belongs to; another's is its own name."""
    if name in METRICS:
        return name
    return next((name.removesuffix(end) for end in _ENDS if name.endswith(end)), name)


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
