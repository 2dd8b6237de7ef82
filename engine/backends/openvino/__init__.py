"""Machines without a GPU: an artifact exported, quantised and run by OpenVINO."""
