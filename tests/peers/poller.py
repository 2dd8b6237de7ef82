"""Asks for /healthz again and again, each time over a connection of its own, and prints when and how long.

Run as a program. It imports nothing that takes longer than it is to measure.
"""

import http.client
import sys
import time

POLL_S = 0.05


def poll(host: str) -> None:
    while True:
        at_s = time.monotonic()
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        print(at_s, time.monotonic() - at_s, flush=True)
        time.sleep(POLL_S)


if __name__ == "__main__":
    poll(sys.argv[1].removeprefix("http://").rstrip("/"))
