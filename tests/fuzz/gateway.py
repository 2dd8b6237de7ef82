"""`livesr` that says how many tasks its event loop has when SIGUSR1 comes."""

import asyncio
import signal
import sys

from server.__main__ import main
from tests.fuzz.service import TASKS


def _tell(*_: object) -> None:
    print(f"{TASKS}{len(asyncio.all_tasks())}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _tell)
    sys.exit(main())
