"""What dashboards of several streams and of one have in common."""

from typing import get_args

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimeline

from deploy.grafana.panels import HALF, Query, board, states, variable
from server.gateway.figures.views import StreamState

_COLOURS: dict[StreamState, str] = {
    "starting": "yellow",
    "running": "green",
    "idle": "blue",
    "reconnecting": "orange",
    "quarantined": "red",
    "failed": "dark-red",
    "stopped": "gray",
}
ALL = 'instance=~"$instance"'
ONE = f'{ALL}, stream="$stream"'


def livesr_board(uid: str, title: str, text: str) -> Dashboard:
    made = board(uid, title, text)
    return made.with_variable(variable("instance", "label_values(livesr_build_info, instance)", many=True))


def stream_states(selector: str, width: int = HALF) -> StateTimeline:
    numbers = " or ".join(
        f'(livesr_stream_state{{{selector}, state="{state}"}} == 1) * {number}'
        for number, state in enumerate(get_args(StreamState))
    )
    words = [(state, _COLOURS[state]) for state in get_args(StreamState)]
    return states("State", (f"max by (stream) ({numbers})", "{{stream}}"), words=words, width=width)


def rate(name: str, selector: str) -> str:
    return f"rate({name}{{{selector}}}[$__rate_interval])"


def quantile(share: float, histogram: str, selector: str, *by: str) -> str:
    """For each value of the labels `by`."""
    buckets = rate(f"{histogram}_bucket", selector)
    return f"histogram_quantile({share}, sum by ({', '.join((*by, 'le'))}) ({buckets}))"


def quantiles(histogram: str, selector: str, *shares: float) -> list[Query]:
    return [(quantile(share, histogram, selector), f"p{share * 100:g}") for share in shares]
