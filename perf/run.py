"""Asks the questions of this folder, all or those named, and says in the end what was missed."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from answers import QUESTIONS, figures_of, insert, load
from measure import HERE, bound, shown


def ask(question: str, results: Path) -> list[str]:
    """Run `question`; what it missed, one line each, or that it did not end with an answer."""
    before = load(question, results)
    done = subprocess.run([sys.executable, str(HERE / f"{question}.py")], check=False)
    answer = load(question, results)
    # Exit code 1 is a missed figure's, and also Python's own for a traceback.
    if answer is None or answer == before:
        return [f"{question}: ended with exit code {done.returncode} and no answer"]
    return [
        f"{question}: {f.name} is {shown(f.value)} {f.unit}, must be {bound(f.must)} or {f.better}"
        for f in figures_of(answer)
        if f.verdict == "MISSED"
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help=f"any of: {', '.join(QUESTIONS)}"
    )
    wanted = parser.parse_args().questions or list(QUESTIONS)
    unknown = [q for q in wanted if q not in QUESTIONS]
    if unknown:
        parser.error(f"no question {unknown[0]!r}; there are: {', '.join(QUESTIONS)}")
    missed: list[str] = []
    for number, question in enumerate(wanted, 1):
        print(f"\n{number} of {len(wanted)}: {question}", flush=True)
        missed += ask(question, HERE / "results")
    readme = HERE / "README.md"
    readme.write_text(insert(readme.read_text(), HERE / "results"))
    print()
    for line in missed:
        print(f"MISSED  {line}")
    if not missed:
        print("every figure that was asked for is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
