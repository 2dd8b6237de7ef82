"""From upscaled pictures and decoded sound to packets."""
