"""What is fuzzed in a running service: each by its count of inputs and its seed, and how they were taken."""

from collections import Counter
from collections.abc import Callable

from tests.fuzz.openapi import fuzz_openapi
from tests.peers.service import Service

LIVE: dict[str, Callable[[Service, int, int], Counter[str]]] = {"openapi": fuzz_openapi}
