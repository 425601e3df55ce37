"""Runs the proof, a few files of tests side by side, and writes latest.json where it was whole.

    python proof/run.py [--side-by-side N] [FILE…]

Most of a proof's time is waited for sessions, time-outs and restarts to pass, so that files run
well beside each other; each has a broker of its own. With files named, only those run, and nothing
is written: a check that was left out cannot live on with the figures of another day.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from taskmill.runtime.clock import SYSTEM_CLOCK

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
sys.path.insert(0, str(TESTS))

from support.proof import LATEST, Proof, is_proof_file  # noqa: E402

#: What takes longest comes first, so that the last ones to end are short.
LONG = ("test_broker", "test_nodes", "test_stops", "test_network", "test_rebalances", "test_kills")


def files() -> list[Path]:
    """Every file that declares a check of the proof."""
    found = [path for path in sorted(TESTS.rglob("test_*.py")) if is_proof_file(path)]
    return sorted(found, key=lambda p: LONG.index(p.stem) if p.stem in LONG else len(LONG))


def run(path: Path, part: Path) -> bool:
    """Run one file at its full number of points; whether all of it passed."""
    log, began = part.with_suffix(".log"), SYSTEM_CLOCK.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            # -P: in here, ./taskmill would hide the installed package with all its rooms.
            [sys.executable, "-P", "-m", "pytest", "-q", "-m", "proof", str(path)],
            env={**os.environ, "TASKMILL_TEST_PROOF": "1", "TASKMILL_TEST_PROOF_FILE": str(part)},
            cwd=HERE.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    name, seconds = path.relative_to(TESTS), SYSTEM_CLOCK.monotonic() - began
    print(f"{'passed' if not done.returncode else 'FAILED'}  {seconds:6.0f} s  {name}", flush=True)
    if done.returncode:
        print(log.read_text()[-6000:], flush=True)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side-by-side", type=int, default=3, metavar="N")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    given = parser.parse_args()
    wanted = [path.resolve() for path in given.files] or files()
    proof = Proof()
    with (
        tempfile.TemporaryDirectory(prefix="taskmill-proof-") as folder,
        ThreadPoolExecutor(given.side_by_side) as pool,
    ):
        parts = [Path(folder) / f"{number}.json" for number in range(len(wanted))]
        passed = list(pool.map(run, wanted, parts))
        for part in parts:
            if part.exists():
                proof.add(json.loads(part.read_text()))
    print("\n".join(proof.table()))
    if given.files:
        return 0 if all(passed) else 1
    missing = proof.missing()
    if missing:
        print(f"not written to {LATEST.name}, since not run: {', '.join(missing)}")
        return 1
    LATEST.write_text(proof.to_json())
    print(f"written to proof/{LATEST.name}")
    return 0 if all(passed) and proof.is_green() else 1


if __name__ == "__main__":
    sys.exit(main())
