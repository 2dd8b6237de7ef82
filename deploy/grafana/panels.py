"""The kinds of panels that our dashboards are made of, by Grafana's own SDK."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, dashboard, heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery as PrometheusQuery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    ScaleDistribution,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Query = tuple[str, str]  # PromQL, and the legend
WHOLE, HALF, THIRD, QUARTER, SIXTH = 24, 12, 8, 6, 4  # of the grid's width
_HEIGHT = 8
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def graph(
    title: str, unit: str, *queries: Query, width: int = THIRD, text: str = "", stacked: bool = False
) -> timeseries.Panel:
    """Lines over time; `stacked` fills what is below them. `unit` is Grafana's name of it."""
    panel = timeseries.Panel().title(title).description(text).datasource(_SOURCE)
    panel.unit(unit).min(0).span(width).height(_HEIGHT).line_width(1).fill_opacity(10)
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    return panel.targets(_targets(queries))


def number(title: str, unit: str, query: str, *, width: int = SIXTH, text: str = "") -> stat.Panel:
    """One figure, as it is now, with its course behind it."""
    panel = stat.Panel().title(title).description(text).datasource(_SOURCE).unit(unit)
    panel.span(width).height(4).graph_mode(BigValueGraphMode.AREA)
    return panel.targets(_targets([(query, "")]))


def states(
    title: str, *queries: Query, words: Sequence[tuple[str, str]], width: int = HALF, text: str = ""
) -> statetimeline.Panel:
    """A bar for each series. `words` are names and colours of its values, which count from 0."""
    named = {
        str(value): ValueMappingResult(text=word, color=colour) for value, (word, colour) in enumerate(words)
    }
    panel = statetimeline.Panel().title(title).description(text).datasource(_SOURCE)
    panel.span(width).height(_HEIGHT).mappings([ValueMap(options=named)])
    panel.line_width(0).fill_opacity(70)
    return panel.targets(_targets(queries))


def heat(title: str, selector: str, *, width: int = THIRD, text: str = "") -> heatmap.Panel:
    """How a histogram of seconds lies over time; `selector` is of its buckets."""
    query = f"sum by (le) (increase({selector}[$__rate_interval]))"
    panel = heatmap.Panel().title(title).description(text).datasource(_SOURCE)
    panel.targets([_target(query, "{{le}}").format(PromQueryFormat.HEATMAP)])
    panel.span(width).height(_HEIGHT).hide_legend()
    colour = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Spectral").reverse(True)
    panel.color(colour.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5).steps(64))
    panel.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(2))
    return panel.y_axis(heatmap.YAxisConfig().unit("s"))


def board(uid: str, title: str, text: str) -> dashboard.Dashboard:
    """An empty dashboard of the last half hour, with the variable `datasource`."""
    made = dashboard.Dashboard(f"livesr: {title}").uid(f"livesr-{uid}").description(text)
    made.tags(["livesr"]).refresh("10s").time("now-30m", "now").timezone("browser")
    made.tooltip(DashboardCursorSync.CROSSHAIR)
    made.link(
        dashboard.DashboardLink("livesr").type(DashboardLinkType.DASHBOARDS).tags(["livesr"]).keep_time(True)
    )
    return made.with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))


def variable(name: str, query: str, *, many: bool = False) -> dashboard.QueryVariable:
    """To choose from what Prometheus knows; with `many` also several, and at first all."""
    made = dashboard.QueryVariable(name).datasource(_SOURCE).query(query)
    made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    if many:
        made.multi(True).include_all(True).current(VariableOption(text="All", value="$__all"))
    return made


def row(title: str) -> dashboard.Row:
    """A heading above the panels that follow."""
    return dashboard.Row(title)


def _targets(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    return [_target(*query, ref=chr(ord("A") + place)) for place, query in enumerate(queries)]


def _target(expression: str, legend: str, ref: str = "A") -> PrometheusQuery:
    return PrometheusQuery().expr(expression).legend_format(legend).ref_id(ref).range()
