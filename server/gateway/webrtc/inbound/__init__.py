"""What a WebRTC publisher sends us: ordered, made whole frames of, reported on. Nothing is decoded."""
