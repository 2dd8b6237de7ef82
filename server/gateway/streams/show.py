"""What the API tells of a stream, as it is now."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from server.gateway.figures.views import (
    EngineLoadView,
    EngineView,
    FramesView,
    OutputView,
    RenditionView,
    SourceView,
    StreamView,
    ViewersView,
    WorkerView,
)
from server.gateway.streams.stream import Stream
from server.settings import PipelineOptions
from server.wire.messages import EngineLoad
from server.wire.urls import mask_credentials, mask_url


def show(stream: Stream) -> StreamView:
    """Credentials are masked."""
    opened, figures = stream.opened, stream.figures
    recent, now_s = figures.recent, time.monotonic()
    elsewhere = stream.outputs.relay.viewers
    return StreamView(
        id=stream.id,
        source=mask_url(stream.settings.source),
        model=stream.settings.model,
        state=stream.state,
        reason=stream.reason,
        created=stream.created,
        started=stream.started,
        input=SourceView.of(opened) if opened else None,
        output=OutputView.model_validate(opened.output) if opened else None,
        renditions=[
            RenditionView.model_validate(form).model_copy(
                update={"watched": form.name in stream.audience.watches}
            )
            for form in (opened.renditions if opened else ())
        ],
        engine=EngineView.model_validate(opened.engine) if opened else None,
        engine_load=_engine_load(stream.engine_load) if stream.engine_load else None,
        level=stream.level,
        stepped=stream.stepped,
        fps=round(recent.fps(now_s), 2),
        latency_s=recent.latency(),
        hls_latency_s=recent.hls_latency(),
        stages_s=recent.stages(),
        frames=figures.frames_view(),
        viewers=ViewersView(
            whep=figures.whep_viewers + elsewhere.whep,
            hls=figures.hls_players.count(now_s) + elsewhere.hls,
        ),
        source_reconnects=figures.reconnects,
        recording=stream.outputs.record.state,
        push=stream.outputs.push.show(),
        worker=figures.worker_view(),
        whep_url=f"/whep/{stream.id}",
        hls_url=f"/hls/{stream.id}/index.m3u8",
    )


def show_unreached(
    stream: str, given: Mapping[str, Any], created: datetime, reason: str, defaults: PipelineOptions
) -> StreamView:
    """A stream of another gateway that can't be asked: what was given is known, the rest is null or 0."""
    return StreamView(
        id=stream,
        source=mask_url(given["source"]),
        model=given.get("model", defaults.model),
        state="reconnecting",
        reason=reason,
        created=created,
        started=created,
        input=None,
        output=None,
        renditions=[],
        engine=None,
        engine_load=None,
        level=0,
        stepped=None,
        fps=0.0,
        latency_s=None,
        hls_latency_s=None,
        stages_s={},
        frames=FramesView(total=0, dropped={}),
        viewers=ViewersView(whep=0, hls=0),
        source_reconnects=0,
        recording=None,
        push=[],
        worker=WorkerView(restarts=0, isolated=False, pid=None, rss_bytes=0, cpu_s=0.0, queues={}),
        whep_url=f"/whep/{stream}",
        hls_url=f"/hls/{stream}/index.m3u8",
    )


def _engine_load(load: EngineLoad) -> EngineLoadView:
    view = EngineLoadView.model_validate(load)
    return view.model_copy(update={"detail": mask_credentials(view.detail)})
