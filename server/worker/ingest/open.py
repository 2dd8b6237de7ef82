"""Which source a URL opens."""

import threading
from pathlib import Path

from server.wire.source_policy import SourcePolicy, check_text, file_path
from server.wire.synthetic import parse_synthetic
from server.wire.urls import find_scheme, publish_address
from server.wire.v4l2 import parse_v4l2
from server.worker.ingest.device import DeviceSource
from server.worker.ingest.file import FileSource
from server.worker.ingest.inbox import PublisherInbox
from server.worker.ingest.network import NetworkSource
from server.worker.ingest.published import PublishedSource
from server.worker.ingest.source import Source
from server.worker.ingest.synthetic import SyntheticSource

DEMO_CLIP = Path(__file__).parents[2] / "demo" / "demo.mp4"


def open_source(
    url: str,
    *,
    policy: SourcePolicy | None,
    loop: bool,
    max_size: tuple[int, int],
    timeout_s: float,
    stop: threading.Event,
    inbox: PublisherInbox | None = None,
) -> Source:
    """The source that a URL or path means. Waits inside it end soon after `stop` is set. No picture far above
    `max_size` is decoded to find out what the source is. What is published comes by `inbox`.

    Raises ValueError for a scheme that nothing here reads, or a URL that `policy` forbids; None forbids none.
    """
    if policy is not None:
        check_text(url, policy)
    match find_scheme(url).reader:
        case "file":
            return FileSource(file_path(url), policy=policy, loop=loop, max_size=max_size, stop=stop)
        case "demo":
            return FileSource(DEMO_CLIP, policy=None, loop=True, max_size=max_size, stop=stop)
        case "synthetic":
            return SyntheticSource(parse_synthetic(url), stop=stop)
        case "device":
            return DeviceSource(parse_v4l2(url), max_size=max_size, timeout_s=timeout_s, stop=stop)
        case "network" if publish_address(url) is not None:
            assert inbox is not None, "only a gateway's worker has publishers"
            return PublishedSource(url, inbox, max_size=max_size, timeout_s=timeout_s, stop=stop)
        case "whip" | "stdin":
            assert inbox is not None, "only a gateway's worker has publishers"
            return PublishedSource(url, inbox, max_size=max_size, timeout_s=timeout_s, stop=stop)
        case "network":
            return NetworkSource(url, policy=policy, max_size=max_size, timeout_s=timeout_s, stop=stop)
