"""WebRTC viewers: negotiation, transports, RTP."""
