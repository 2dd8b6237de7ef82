"""From a trained AWSRN checkpoint to a running engine that upscales YUV 4:2:0 frames."""
