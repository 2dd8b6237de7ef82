"""The process of a stream: frames are decoded, upscaled and encoded here, and never leave it raw."""
