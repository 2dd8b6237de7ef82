"""Traces for OpenTelemetry: where the time of some frames went, and every call of the API.

The only file that imports OpenTelemetry; it is imported where the settings name a collector.
"""

import random
import re
import time
from collections.abc import Mapping
from importlib.metadata import version

from fastapi.telemetry import TelemetryConfig
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import format_trace_id, set_span_in_context
from opentelemetry.util.types import AttributeValue

from server.settings import Tracing as TracingSettings
from server.wire.messages import Stage, VideoPacket

_TRACED = ("/api/", "/whep/", "/whip/")  # HLS players ask several times a second
_EXPORT_S = 2.0  # what a collector is given to answer, at the end of the service, too
_NAMED = re.compile(r"(/(?:api/\w+|whep|whip)/[^/]+)/.*")  # up to the stream


class _Discreet(SpanProcessor):
    """The end of a path may be a viewer's session, which is its secret; a query may have others."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        told = span.attributes or {}
        if path := told.get("url.path"):
            span.set_attribute("url.path", _NAMED.sub(r"\1/…", str(path)))
        if "url.query" in told:
            span.set_attribute("url.query", "…")


class Tracing:
    """Spans go to the collector from a thread of their own; what that can't get rid of is dropped there."""

    def __init__(self, settings: TracingSettings) -> None:
        self._ratio = settings.sample_ratio
        resource = Resource.create({"service.name": "livesr", "service.version": version("livesr")})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(_Discreet())
        url = f"{settings.endpoint.rstrip('/')}/v1/traces"
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url, timeout=_EXPORT_S)))
        self._tracer = self._provider.get_tracer("livesr")

    def frame(
        self, stream: str, packet: VideoPacket, stages_s: Mapping[Stage, float], sent_ns: int
    ) -> str | None:
        """Traces a frame whose first bytes were with its viewers at `sent_ns`. The trace's id, or None where
        this frame isn't one of the sample."""
        if random.random() >= self._ratio:
            return None
        to_wall_ns = time.time_ns() - time.monotonic_ns()
        at_ns = packet.arrival_ns + to_wall_ns
        attributes: dict[str, AttributeValue] = {
            "livesr.stream": stream,
            "livesr.rendition": packet.rendition,
            "livesr.keyframe": packet.keyframe,
            "livesr.bytes": len(packet.payload),
        }
        frame = self._tracer.start_span("frame", Context(), start_time=at_ns, attributes=attributes)
        within = set_span_in_context(frame)
        for stage, duration_s in stages_s.items():
            # One follows the other, as all waiting in the worker is in "queue"; then the frame crosses over.
            begins_ns = packet.sent_ns + to_wall_ns if stage == "publish" else at_ns
            at_ns = begins_ns + round(duration_s * 1e9)
            self._tracer.start_span(stage, within, start_time=begins_ns).end(at_ns)
        frame.end(sent_ns + to_wall_ns)
        return format_trace_id(frame.get_span_context().trace_id)

    def of_calls(self) -> TelemetryConfig:
        """What FastAPI is told, so that it makes a span of each call of the API, WHEP and WHIP."""
        return TelemetryConfig(
            tracer_provider=self._provider,
            exclude=lambda scope: not scope["path"].startswith(_TRACED),
            operation_spans=False,
            metrics=False,
            logs=False,
            auto_configure=False,
        )

    def close(self) -> None:
        """Sends what is left. It may take some seconds."""
        self._provider.shutdown()
