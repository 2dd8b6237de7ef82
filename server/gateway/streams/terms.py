"""What a stream is run by, as it is now or shall be."""

from dataclasses import dataclass

from server.gateway.streams.audience import Granted
from server.settings import Limits, StreamSettings
from server.wire.messages import WorkerJob
from server.wire.source_policy import SourcePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """`policy` binds the source, except that of the settings' own stream."""

    settings: StreamSettings
    policy: SourcePolicy | None
    limits: Limits

    def job(self) -> WorkerJob:
        return self.settings.job(self.limits, self.policy)

    def are(self, others: "Terms") -> bool:
        """Whether a change to those would change nothing."""
        return self.settings == others.settings and self.job() == others.job()

    @property
    def ladder(self) -> tuple[object, ...]:
        """What says which networks its levels are."""
        return self.settings.model, self.settings.backend, self.settings.ladder

    @property
    def source(self) -> tuple[object, ...]:
        """What says where it may come from, and does."""
        return self.settings.source, self.policy

    @property
    def granted(self) -> Granted | None:
        if self.settings.upscale_when == "always":
            return "played"
        return "watched" if self.settings.record or self.settings.push else None
