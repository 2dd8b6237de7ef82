"""What the log tells of a stream that has been opened."""

from server.wire.messages import Opened


def opened_fields(opened: Opened) -> dict[str, str]:
    source, output, engine = opened.source, opened.output, opened.engine
    return {
        "codec": source.codec,
        "size": f"{source.width}x{source.height}",
        "output_size": f"{output.width}x{output.height}",
        "model": engine.model,
        "backend": engine.backend,
        "precision": engine.precision,
        "decoder": source.decoder,
        "encoder": output.encoder,
    }
