"""Runs schedules from the command line; see simulation.schedule for the commands."""

from __future__ import annotations

import argparse
import sys

from simulation.bug import Bug
from simulation.bugs import PLANTED
from simulation.schedule import failure, schedule, shrink, told


def main() -> int:
    """Exit code 1 where a schedule fails."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", default=0, help="the first seed (0)")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on (1)")
    parser.add_argument("--bug", choices=sorted(PLANTED), help="plant this mistake")
    asked = parser.parse_args()
    bug = PLANTED[asked.bug]() if asked.bug else Bug()
    for seed in range(asked.seed, asked.seed + asked.count):
        plan = schedule(seed, bug)
        found = failure(plan, bug)
        if found is not None:
            print(f"seed {seed}: {found.text}\nshrunk:")
            plan = shrink(plan, bug)
            print("\n".join(told(plan)))
            print(failure(plan, bug))
            return 1
        if seed % 10_000 == 9_999:
            print(f"seed {seed}", file=sys.stderr)
    print(f"seeds {asked.seed} to {asked.seed + asked.count - 1}: nothing is broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
