"""What can go wrong with a model, as the user sees it."""


class EngineError(ValueError):
    """A model that can't be loaded, built or run as asked; the message names thing, value and rule."""


class ModelNotFound(EngineError):
    """No zoo model, artifact or checkpoint of that name."""


class InvalidCheckpoint(EngineError):
    """A file that is no checkpoint, or one whose weights do not fit its configuration."""


class InvalidArtifact(EngineError):
    """A folder that is no artifact, or one whose files differ from its manifest."""


class ParityError(EngineError):
    """A compiled network whose output is too far from the float32 reference."""


class BackendUnavailable(EngineError):
    """This machine cannot run the backend that was asked for."""


class BuildFailed(EngineError):
    """A compiler that gave up on an engine; the message carries what it said last."""


class BuildTimeout(BuildFailed):
    """A compiler that was stopped because it took longer than it was given."""


class PlanRefused(BuildFailed):
    """A runtime that does not take a plan, although it was built for this GPU and these libraries."""


class DeviceFailed(RuntimeError):
    """A GPU that ran out of memory, was lost, or failed at its work; the message says which. Unlike an
    `EngineError` it says nothing about the model: the same stream may run in another process, or later."""
