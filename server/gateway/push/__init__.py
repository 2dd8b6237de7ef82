"""Streams sent on to other servers, each by a process of its own."""
