"""What the parts of one stream log to: each line says which stream it is about."""

import logging
import sys

Log = logging.LoggerAdapter[logging.Logger]

_FORMAT = "%(asctime)s %(levelname)s %(name)s [%(stream)s] %(message)s"


def stream_log(stream: str) -> Log:
    return logging.LoggerAdapter(logging.getLogger("livesr.worker"), {"stream": stream})


def log_to_stderr() -> None:
    """Libraries log along, about no stream."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT, defaults={"stream": "-"}))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
