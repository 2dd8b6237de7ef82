"""Traces, as a collector gets them: frames by stage, calls of the API; and nothing of it where it is off."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from server.gateway.app import create_app
from server.settings import Settings
from tests.server.gateway.scripted_gateway import gateway
from tests.server.gateway.scripted_worker import ScriptedPlacement

STAGES = ["demux", "decode", "queue", "upscale", "encode", "publish"]
CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # a trace, and a span in it


class Collector:
    """Takes OTLP by HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                known = (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                if known:
                    collector.bodies.append(body)
                self.send_response(200 if known else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def spans(self) -> list[Span]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def attributes(span: Span) -> dict[str, str | int]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


async def test_frames_and_calls_reach_a_collector(collector: Collector):
    async with gateway(tracing={"endpoint": collector.endpoint, "sample_ratio": 1.0}) as served:
        await served.in_state("running")
        caller = {"traceparent": f"00-{'-'.join(CALLER)}-01"}
        assert (await served.http.get("/api/streams/demo", headers=caller)).status_code == 200
        assert (await served.http.delete("/whep/demo/SECRET-SESSION?key=SECRET-KEY")).status_code == 404
        plain = await served.http.get("/metrics")
        metrics = await served.http.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    spans = collector.spans()  # the gateway's end has sent the last

    frames = [span for span in spans if span.name == "frame"]
    assert frames
    for frame in frames:
        assert attributes(frame)["livesr.stream"] == "demo"
        stages = [span for span in spans if span.parent_span_id == frame.span_id]
        assert [span.name for span in stages] == STAGES
        assert {span.trace_id for span in stages} == {frame.trace_id}
        upscale, encode = stages[3:5]
        assert upscale.end_time_unix_nano - upscale.start_time_unix_nano == 15_000_000
        assert encode.start_time_unix_nano == upscale.end_time_unix_nano
        assert stages[0].start_time_unix_nano == frame.start_time_unix_nano
        assert stages[-1].end_time_unix_nano == frame.end_time_unix_nano

    [shown] = [span for span in spans if (span.trace_id.hex(), span.parent_span_id.hex()) == CALLER]
    assert shown.name == "GET /api/streams/{stream}"
    assert attributes(shown)["http.response.status_code"] == 200
    assert attributes(shown)["url.path"] == "/api/streams/demo"
    [left] = [span for span in spans if span.name.startswith("DELETE")]
    assert attributes(left)["http.response.status_code"] == 404
    assert attributes(left)["url.path"] == "/whep/demo/…"
    assert not any(b"SECRET" in body for body in collector.bodies)
    assert not [span for span in spans if "metrics" in span.name]

    assert metrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert any(f'# {{trace_id="{frame.trace_id.hex()}"}}' in metrics.text for frame in frames)
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert "trace_id" not in plain.text


async def test_of_a_share_of_nought_no_frame_is_traced(collector: Collector):
    async with gateway(tracing={"endpoint": collector.endpoint, "sample_ratio": 0.0}) as served:
        await served.in_state("running")
    names = {span.name for span in collector.spans()}
    assert names == {"GET /api/streams/{stream}"}


async def test_a_collector_that_is_away_costs_nobody_anything():
    async with gateway(tracing={"endpoint": "http://127.0.0.1:9", "sample_ratio": 1.0}) as served:
        await served.in_state("running")
        assert (await served.metrics())['livesr_frames_total{stream="demo"}'] > 0


def test_nothing_of_it_is_imported_where_it_is_off():
    code = """if True:
        import sys
        from server.gateway.app import create_app
        from server.settings import Settings
        from tests.server.gateway.scripted_worker import ScriptedPlacement
        create_app(Settings(), ScriptedPlacement())
        # FastAPI brings the bare API along, not what makes, keeps and sends spans.
        print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exp"))])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_where_it_is_not_installed_the_error_says_how(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    monkeypatch.delitem(sys.modules, "server.gateway.figures.tracing", raising=False)
    settings = Settings.model_validate({"tracing": {"endpoint": "http://collector.example:4318"}})
    rule = r"tracing\.endpoint='http://collector\.example:4318': needs opentelemetry.*'livesr\[otel\]'"
    with pytest.raises(ValueError, match=rule):
        create_app(settings, ScriptedPlacement())


@pytest.mark.parametrize("endpoint", ["collector:4318", "grpc://collector:4317", "http://", "http://c/?a=b"])
def test_an_endpoint_that_can_be_none_is_refused(endpoint: str):
    with pytest.raises(ValueError, match="must look like http://HOST:4318"):
        Settings.model_validate({"tracing": {"endpoint": endpoint}})
