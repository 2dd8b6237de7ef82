"""What Prometheus is told: docs/metrics.md has every metric, and frames are late by their stream's budget."""

import asyncio
import re
import time
from dataclasses import replace

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from server.gateway.figures.figures import Figures
from server.gateway.figures.metrics import Metrics
from server.gateway.figures.recent import RecentFrames
from server.gateway.figures.stream_metrics import StreamMetrics
from server.gateway.figures.table import markdown
from server.gateway.placement import Elsewhere
from server.wire.messages import Dropped, Heartbeat, Trace, VideoPacket
from tests.conftest import ROOT
from tests.server.gateway.scripted_gateway import gateway
from tests.server.gateway.scripted_worker import Script, ScriptedWorker

DOCS = ROOT / "docs" / "metrics.md"


def test_the_table_is_what_the_code_makes():
    made = "python -m server.gateway.figures.table > docs/metrics.md makes it anew"
    assert DOCS.read_text() == markdown(), made


async def test_the_table_names_everything_that_a_service_exports():
    async with gateway() as served:
        await served.in_state("running")
        text = (await served.http.get("/metrics")).text
        negotiated = await served.http.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    families = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    documented = set(re.findall(r"^\| `(\w+)`", DOCS.read_text(), re.MULTILINE))
    assert families <= documented
    assert "# EOF" in negotiated.text
    assert "_created" not in negotiated.text


class Counted:
    """A stream's figures, and what they come to in /metrics."""

    def __init__(self, budget_s: float = 0.0) -> None:
        self._metrics = Metrics()
        self.figures = Figures(StreamMetrics(self._metrics, "demo"), budget_s=budget_s)

    def frame(self, *, latency_s: float, demux_s: float = 0.0, fps: float = 25.0) -> None:
        now_ns = time.monotonic_ns()
        self.figures.frame_out(
            VideoPacket(
                rendition="upscaled",
                pts=0,
                duration=round(90_000 / fps),
                keyframe=False,
                arrival_ns=now_ns - round(latency_s * 1e9),
                sent_ns=now_ns,
                trace=Trace(demux=demux_s, decode=0, queue=0, upscale=0, encode=0),
                payload=b"",
            )
        )

    def __getitem__(self, name: str) -> float | None:
        return self.value(name, {"stream": "demo"})

    def value(self, name: str, labels: dict[str, str]) -> float | None:
        told = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        text = asyncio.run(self._metrics.exposition())[0].decode()
        found = re.search(rf"^livesr_{name}{{{re.escape(told)}}} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None


def test_no_first_drop_is_missed_by_rate():
    labels = {"stream": "demo", "stage": "upscale", "reason": "overload"}
    assert Counted().value("frames_dropped_total", labels) == 0


def test_sound_that_is_not_heard_is_no_frame_that_is_not_shown():
    counted = Counted()
    heard = {"stream": "demo", "reason": "corrupt"}
    assert counted.value("audio_packets_dropped_total", heard) == 0
    counted.figures.drop(Dropped(stage="decode", reason="corrupt", count=503, sound=True))
    assert counted.value("audio_packets_dropped_total", heard) == 503
    assert counted.value("frames_dropped_total", {**heard, "stage": "decode"}) == 0
    assert not counted.figures.frames_view().dropped


@pytest.mark.parametrize(("interval_s", "fps"), [(5.0, 0.2), (0.04, 25.0)])
def test_a_slow_source_has_a_rate_and_a_silent_one_has_none(interval_s, fps):
    recent = RecentFrames()
    for number in range(4):
        recent.add(number * interval_s, {}, 0.1)
    assert recent.fps(3.5 * interval_s) == pytest.approx(fps)
    assert recent.fps(6 * interval_s + 5.0) == 0


def test_a_frame_is_late_above_three_intervals_and_in_any_case_above_150_ms():
    counted = Counted()
    counted.frame(latency_s=0.11, fps=25)
    assert counted["frames_late_total"] == 0
    counted.frame(latency_s=0.13, fps=25)
    assert (counted["frames_late_total"], counted["latency_budget_seconds"]) == (1, 0.12)
    counted.frame(latency_s=0.14, fps=5)
    assert (counted["frames_late_total"], counted["latency_budget_seconds"]) == (1, 0.15)
    counted.frame(latency_s=0.16, fps=5)
    assert (counted["frames_late_total"], counted["frames_total"]) == (2, 4)


def test_the_streams_own_budget_counts_where_it_has_one():
    counted = Counted(budget_s=0.5)
    counted.frame(latency_s=0.4)
    assert counted["frames_late_total"] == 0
    counted.figures.budget_s = 0.05  # as it is changed
    counted.frame(latency_s=0.4)
    assert counted["frames_late_total"] == 1


def test_what_a_demuxer_holds_back_makes_no_frame_late():
    counted = Counted()
    counted.frame(latency_s=4.1, demux_s=4.0)
    assert counted["frames_late_total"] == 0


def test_pictures_of_the_source_are_counted_over_workers():
    counted = Counted()
    for pictures in (10, 25):
        counted.figures.heartbeat(Heartbeat(queues={}, rss_bytes=1, cpu_s=1, pictures=pictures))
    counted.figures.worker_started(ScriptedWorker(Script(live=False)))
    counted.figures.heartbeat(Heartbeat(queues={}, rss_bytes=1, cpu_s=1, pictures=5))
    assert counted["source_frames_total"] == 30


def _cpu_s_of_a_life(metrics: Metrics, stream: str) -> float:
    """Of a stream whose worker is elsewhere, from its second heartbeat to its end."""
    made = StreamMetrics(metrics, stream)
    beat = Heartbeat(queues={"upscale": 0}, rss_bytes=1, cpu_s=1)
    place = Elsewhere(node="b", clock_offset_s=0, clock_error_s=0, idle_cores=0)
    made.elsewhere(replace(place, node="a"))
    began_s = time.thread_time()
    for _ in range(10):
        made.heartbeat(beat)
        made.elsewhere(place)
    made.forget()
    return time.thread_time() - began_s


def test_a_stream_among_hundreds_costs_no_more_than_one_alone():
    alone, crowded = Metrics(), Metrics()
    others = [StreamMetrics(crowded, f"s{number}") for number in range(200)]
    for other in others:
        other.elsewhere(Elsewhere(node="a", clock_offset_s=0, clock_error_s=0, idle_cores=0))
        other.enter("running")
    least = [min(_cpu_s_of_a_life(metrics, "demo") for _ in range(5)) for metrics in (alone, crowded)]
    assert least[1] < 4 * least[0]


def test_with_a_stream_all_that_is_told_of_it_goes():
    metrics = Metrics()
    made = StreamMetrics(metrics, "demo")
    made.heartbeat(Heartbeat(queues={"upscale": 0}, rss_bytes=1, cpu_s=1))
    made.elsewhere(Elsewhere(node="a", clock_offset_s=0, clock_error_s=0, idle_cores=0))
    made.enter("running")
    made.recording(True)
    made.push("rtmp://a/b", connected=True)
    made.renditions({"upscaled": 1})
    made.step(0, 1)
    StreamMetrics(metrics, "other")
    made.forget()
    text = asyncio.run(metrics.exposition())[0].decode()
    assert 'stream="other"' in text
    assert 'stream="demo"' not in text


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_a_scrape_of_many_streams_holds_nobody_up_and_has_each_family_once(accept):
    metrics = Metrics()
    for number in range(50):
        StreamMetrics(metrics, f"s{number}").enter("running")
    scrape = asyncio.create_task(metrics.exposition(accept))
    turns = 0
    while not scrape.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 50
    parse = openmetrics.text_string_to_metric_families if accept else parser.text_string_to_metric_families
    families = list(parse(scrape.result()[0].decode()))
    assert len({family.name for family in families}) == len(families)
    states = next(family for family in families if family.name == "livesr_stream_state")
    running = [s.labels["stream"] for s in states.samples if s.labels["state"] == "running" and s.value == 1]
    assert running == [f"s{number}" for number in range(50)]
