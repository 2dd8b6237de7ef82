"""Drives a running service from outside, over HTTP and WebRTC only."""
