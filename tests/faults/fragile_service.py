"""The service, with workers that do as they are told by `fragile_worker`."""

import sys
from functools import partial

from server.__main__ import main
from server.commands import serve
from server.gateway.placement.local import LocalPlacement

if __name__ == "__main__":
    vars(serve)["LocalPlacement"] = partial(LocalPlacement, module="tests.faults.fragile_worker")
    sys.exit(main())
