"""The live service: sources in, upscaled WebRTC and HLS out, metrics beside them."""
