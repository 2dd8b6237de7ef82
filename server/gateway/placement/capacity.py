"""What this machine carries, from measured costs: what streams take of it, and whether another one fits."""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence

from engine.frame import USUAL_FPS
from engine.machine import cpu
from engine.measure.costs import load_costs
from server.gateway.placement.cpu import quota_cores
from server.settings import PipelineOptions
from server.wire.logs import get_logger
from server.wire.messages import BICUBIC, WorkerJob

log = get_logger(__name__)


def last_rung(stream: PipelineOptions | WorkerJob) -> str:
    """What upscales the stream where nothing larger can."""
    if stream.ladder is None:
        return BICUBIC
    return stream.ladder[-1] if stream.ladder else stream.model


def bicubic_megapixels(job: WorkerJob, costs: Mapping[str, float], assumed_pixels_per_s: float) -> float:
    """What the stream takes with its smallest network, as millions of source pixels a second that bicubic
    would upscale. A network that wasn't measured counts as bicubic."""
    pixels_per_s = assumed_pixels_per_s
    if job.opened is not None:
        source = job.opened.source
        pixels_per_s = source.width * source.height * (source.fps or USUAL_FPS)
    bicubic = costs.get(BICUBIC, 0.0)
    more = costs.get(last_rung(job), bicubic) / bicubic if bicubic else 1.0
    return round(pixels_per_s / 1e6 * more, 3)


class Capacity:
    """CPU time of this machine, or of the container that we run in. What was not measured costs nothing."""

    def __init__(self, usable_share: float) -> None:
        self.cores = min(float(cpu().cores), quota_cores() or float("inf"))
        self.costs = load_costs()  # CPU seconds for a million pixels of source, by model
        self.usable_cores = self.cores * usable_share  # the gateway, the system and bursts need some, too

    def cores_for(self, model: str, pixels_per_s: float) -> float:
        """What a stream takes that this network upscales."""
        return self.costs.get(model, 0.0) * pixels_per_s / 1e6

    async def learn(self, models: Sequence[str]) -> None:
        """Measures what isn't known of these models and bicubic: a second each, in a process of its own."""
        unknown = [model for model in dict.fromkeys((BICUBIC, *models)) if model not in self.costs]
        if not unknown:
            return
        command = [sys.executable, "-m", "server", "capacity", "--json"]
        for model in unknown:
            command += ["--model", model]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            log.warning("capacity unknown", reason="what networks cost could not be measured")
            return
        self.costs |= json.loads(output)["cpu_s_per_megapixel"]
        carried = {model: round(self.usable_cores / cost, 1) for model, cost in self.costs.items()}
        log.info("capacity measured", megapixels_per_s=carried)
