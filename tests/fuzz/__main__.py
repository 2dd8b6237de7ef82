"""`python -m tests.fuzz COUNT [TARGET …]`: mutated input, for readers one by one and for a whole service."""

import random
import sys
import time
from collections import Counter

from tests.fuzz.live import LIVE
from tests.fuzz.mutate import mutated
from tests.fuzz.service import fuzzed
from tests.fuzz.targets import TARGETS, Target


def fuzz(target: Target, count: int, seed: int) -> tuple[Counter[str], float]:
    """Outcomes, and the CPU seconds of the slowest input. Raises what the target raises beyond its refusal,
    the input noted on it."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    slowest_s = 0.0
    for number in range(count):
        data = mutated(rng.choice(target.seeds), target.seeds, rng)
        start_s = time.process_time()
        try:
            target.run(data)
            outcomes["taken"] += 1
        except target.refusal:
            outcomes["refused"] += 1
        except Exception as exc:
            exc.add_note(f"input {number} of seed {seed}: {data!r}")
            raise
        slowest_s = max(slowest_s, time.process_time() - start_s)
    return outcomes, slowest_s


def main() -> None:
    count, names = int(sys.argv[1]), sys.argv[2:] or [*TARGETS, *LIVE]
    seed = int(time.time())
    for name in names:
        if name in LIVE:
            with fuzzed() as service:
                outcomes = LIVE[name](service, count // len(names), seed)
            print(f"{name:12} seed {seed}: {dict(outcomes)}", flush=True)
            continue
        outcomes, slowest_s = fuzz(TARGETS[name], count // len(names), seed)
        print(f"{name:12} seed {seed}: {dict(outcomes)}, the slowest {1e3 * slowest_s:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
