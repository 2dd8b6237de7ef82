"""From one encoder to many readers."""
