"""The kinds of panels that the dashboards are made of, all of one look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel: TypeAlias = stat.Panel | timeseries.Panel | table.Panel | heatmap.Panel
_P = TypeVar("_P", stat.Panel, timeseries.Panel, table.Panel, heatmap.Panel)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, ORANGE, RED = "green", "orange", "red"
#: Rows of the grid that a number, and a graph, is high. The grid is 24 columns wide.
LOW, HIGH = 4, 8


class Query(NamedTuple):
    """What is asked, and how its series are called: `{{label}}` is a label's value."""

    expr: str
    legend: str = ""


class Column(NamedTuple):
    """A table's column: its name, what is asked for it, and its unit."""

    name: str
    expr: str
    unit: str = "short"
    steps: Sequence[tuple[float, str]] = ()


class Text(NamedTuple):
    """What a panel means and what to do, and the alert of docs/runbooks.md that says more."""

    about: str
    alert: str = ""

    def __str__(self) -> str:
        more = f"\n\nMore: docs/runbooks.md#{self.alert.lower()}" if self.alert else ""
        return self.about + more


def rising(*limits: float) -> list[tuple[float, str]]:
    """Green, from the first limit on orange, from the second on red; one alone: red at once."""
    colours = (ORANGE, RED) if len(limits) == 2 else (RED,)
    return [(0, GREEN), *zip(limits, colours, strict=True)]


def warning(limit: float) -> list[tuple[float, str]]:
    """Green, from `limit` on orange."""
    return [(0, GREEN), (limit, ORANGE)]


def falling(red: float, orange: float) -> list[tuple[float, str]]:
    """Red up to `red`, orange up to `orange`, then green."""
    return [(0, RED), (red, ORANGE), (orange, GREEN)]


def number(
    title: str,
    expr: str,
    unit: str,
    text: Text,
    *,
    steps: Sequence[tuple[float, str]] = (),
    idle: str = "0",
    width: int = 4,
) -> Panel:
    """One value that is to be read at a glance; `idle` is said where there is none."""
    reduce = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = stat.Panel().graph_mode(BigValueGraphMode.AREA).reduce_options(reduce)
    colour = BigValueColorMode.BACKGROUND if steps else BigValueColorMode.VALUE
    panel.color_mode(colour).no_value(idle)
    if steps:
        panel.thresholds(_thresholds(steps)).color_scheme(_by_thresholds())
    else:
        panel.color_scheme(build.FieldColor().mode(FieldColorModeId.FIXED).fixed_color("blue"))
    return _framed(panel, title, unit, text, width, LOW, [_asked(Query(expr), "A")])


def lines(
    title: str,
    unit: str,
    text: Text,
    *queries: Query,
    steps: Sequence[tuple[float, str]] = (),
    stacked: bool = False,
    width: int = 8,
    top: float | None = None,
) -> Panel:
    """Curves over time; limits are dashed lines. `top`: the greatest value that can be."""
    legend = (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    tip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    panel = timeseries.Panel().legend(legend).tooltip(tip).min(0).line_width(1)
    panel.fill_opacity(30 if stacked else 10).show_points(VisibilityMode.NEVER)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if steps:
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        panel.thresholds(_thresholds(steps)).thresholds_style(style)
    if top is not None:
        panel.max(top)
    return _framed(panel, title, unit, text, width, HIGH, _many(queries))


def heat(title: str, expr: str, text: Text, *, width: int = 8) -> Panel:
    """How often a histogram saw which duration, over time."""
    colour = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges")
    panel = heatmap.Panel().calculate(False).color(colour.steps(64))
    panel.y_axis(heatmap.YAxisConfig().unit("s")).hide_legend()
    asked = _asked(Query(expr, "{{le}}"), "A").format(PromQueryFormat.HEATMAP)
    return _framed(panel, title, "short", text, width, HIGH, [asked])


def columns(
    title: str, key: str, text: Text, *shown: Column, link: str = "", width: int = 24
) -> Panel:
    """A table: a row for each value of label `key`, which leads to `link`."""
    queries = [Query(column.expr) for column in shown]
    asked = [query.instant().format(PromQueryFormat.TABLE) for query in _many(queries)]
    names = {f"Value #{_letter(n)}": column.name for n, column in enumerate(shown)}
    panel = _table(asked, {key: key.capitalize(), **names}, title, text, width)
    for column in shown:
        values: dict[str, Any] = {"unit": column.unit}
        if column.steps:
            values["thresholds"] = _thresholds(column.steps).build()
            values["custom.cellOptions"] = {"type": "color-text"}
        panel.override_by_name(column.name, _values(values))
    if link:
        values = {"links": [{"title": f"This {key}", "url": link}]}
        panel.override_by_name(key.capitalize(), _values(values))
    return panel


def labels(title: str, expr: str, text: Text, *shown: str, width: int = 24) -> Panel:
    """A table of these labels, a row for each series of `expr`."""
    asked = _asked(Query(expr), "A").instant().format(PromQueryFormat.TABLE)
    return _table([asked], {name: name.capitalize() for name in shown}, title, text, width)


def _table(
    asked: list[prometheus.Dataquery],
    names: Mapping[str, str],
    title: str,
    text: Text,
    width: int,
) -> table.Panel:
    """Of what was asked, the fields `names` in that order, under the names that they map to."""
    panel = table.Panel()
    if len(asked) > 1:
        panel.with_transformation(DataTransformerConfig("merge", options={}))
    only = {"include": {"names": list(names)}}
    panel.with_transformation(DataTransformerConfig("filterFieldsByName", options=only))
    order = {name: place for place, name in enumerate(names)}
    renamed = {"indexByName": order, "renameByName": dict(names), "excludeByName": {}}
    panel.with_transformation(DataTransformerConfig("organize", options=renamed))
    return _framed(panel, title, "none", text, width, HIGH, asked)


def _framed(
    panel: _P,
    title: str,
    unit: str,
    text: Text,
    width: int,
    height: int,
    asked: Iterable[prometheus.Dataquery],
) -> _P:
    panel.title(title).description(str(text)).unit(unit).datasource(SOURCE)
    panel.span(width).height(height)
    for query in asked:
        panel.with_target(query)
    return panel


def _many(queries: Sequence[Query]) -> list[prometheus.Dataquery]:
    return [_asked(query, _letter(n)) for n, query in enumerate(queries)]


def _letter(place: int) -> str:
    return chr(ord("A") + place)


def _asked(query: Query, name: str) -> prometheus.Dataquery:
    asked = prometheus.Dataquery().expr(query.expr).ref_id(name).datasource(SOURCE).range()
    return asked.legend_format(query.legend) if query.legend else asked


def _thresholds(steps: Sequence[tuple[float, str]]) -> build.ThresholdsConfig:
    """The first step is from the least value on, whatever its number."""
    (_, least), *rest = steps
    made = [Threshold(None, least), *(Threshold(limit, colour) for limit, colour in rest)]
    return build.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def _by_thresholds() -> build.FieldColor:
    return build.FieldColor().mode(FieldColorModeId.THRESHOLDS)


def _values(values: Mapping[str, Any]) -> list[DynamicConfigValue]:
    return [DynamicConfigValue(name, value) for name, value in values.items()]


def alerts_link() -> build.DashboardLink:
    """To Grafana's own list of alerts."""
    return build.DashboardLink("Alerts").type(DashboardLinkType.LINK).url("/alerting/list")
