"""A dashboard: its variables, its links to the others, and its rows of panels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.panels import SOURCE, Panel, alerts_link
from dashboards.promql import Scope

TAG = "taskmill"
#: Something that every role serves.
_ANY = '{__name__=~"taskmill_(worker_info|schedules|console_requests_total)"'
_ALL = VariableOption(True, ["All"], ["$__all"])


def board(
    uid: str, title: str, about: str, scope: Scope, rows: Mapping[str, Sequence[Panel]]
) -> str:
    """The dashboard as Grafana reads it: JSON, the same for the same panels."""
    made = (
        build.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags([TAG])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(_others())
        .link(alerts_link())
    )
    for variable in _variables(scope):
        made.with_variable(variable)
    number = 0
    for name, panels in rows.items():
        number += 1
        made.with_row(build.Row(name).id(number))
        for panel in panels:
            number += 1
            made.with_panel(panel.id(number))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _others() -> build.DashboardLink:
    """To every dashboard of taskmill's, with the time and the variables that are chosen."""
    link = build.DashboardLink("taskmill").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.include_vars(True).keep_time(True).as_dropdown(False)


def _variables(
    scope: Scope,
) -> list[build.DatasourceVariable | build.QueryVariable]:
    found: list[build.DatasourceVariable | build.QueryVariable] = [
        build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        _values("namespace", f"{_ANY}}}", all_value=".*"),
        # Not `.*`: `up` is of all jobs.
        _values("job", f'{_ANY},namespace=~"$namespace"}}'),
    ]
    where = 'namespace=~"$namespace",job=~"$job"'
    if scope.instance:
        found.append(_values("instance", f"taskmill_worker_info{{{where}}}", all_value=".*"))
    if scope.queue:
        series = f"taskmill_oldest_task_age_seconds{{{where}}}"
        found.append(_values("queue", series, all_value=".*"))
    if scope.task:
        series = (
            '{__name__=~"taskmill_(tasks_enqueued|tasks_finished|schedule_runs)_total",'
            f'{where},queue=~"$queue"}}'
        )
        found.append(_values("task", series, all_value=".*"))
    return found


def _values(name: str, series: str, all_value: str = "") -> build.QueryVariable:
    """A variable of the values that label `name` has in `series`; at first all of them."""
    query = {"qryType": 1, "query": f"label_values({series}, {name})", "refId": name}
    one = build.QueryVariable(name).label(name.capitalize()).datasource(SOURCE).query(query)
    one.multi(True).include_all(True).current(_ALL).sort(VariableSort.ALPHABETICAL_ASC)
    one.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return one.all_value(all_value) if all_value else one
