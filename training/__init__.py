"""Trains and judges AWSRN. Imports engine, never server."""
