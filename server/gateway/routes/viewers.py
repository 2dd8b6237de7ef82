"""`/api/streams/{stream}/viewers`: what the server knows of a viewer's network, for that viewer."""

from fastapi import APIRouter, Depends

from server.gateway.auth.guard import Guard
from server.gateway.errors import Forbidden, SessionNotFound, Unauthorized, responses
from server.gateway.figures.views import ViewerView
from server.gateway.routes.whep import Sessions
from server.gateway.webrtc.peer import Peer


def router(sessions: Sessions, guard: Guard) -> APIRouter:
    routes = APIRouter(
        prefix="/api/streams/{stream}/viewers",
        tags=["Streams"],
        dependencies=[Depends(guard.needs("view"))],
        responses=responses(Unauthorized, Forbidden),
    )

    @routes.get("/{session}", responses=responses(SessionNotFound))
    async def show_viewer(stream: str, session: str) -> ViewerView:
        """One WebRTC viewer, by the last part of its WHEP session's Location, which only it knows."""
        return _show(sessions.get(stream, session))

    return routes


def _show(peer: Peer) -> ViewerView:
    path = peer.path
    delivered_bps = path.delivered_bps or None
    return ViewerView(
        rendition=peer.rendition,
        reason=peer.reason,
        rtt_s=round(path.rtt_s, 4) if path.rtt_measured else None,
        loss=round(path.loss, 4),
        queue_s=round(path.queue_s, 4) if delivered_bps else None,
        sent_bps=round(path.sent_bps),
        delivered_bps=delivered_bps and round(delivered_bps),
        estimate_bps=path.estimate_bps and round(path.estimate_bps),
    )
