"""The process of viewers and operators: packets of every stream come in, and go out by HTTP and WebRTC."""
