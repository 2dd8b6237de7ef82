"""One module for each `livesr` sub-command."""
