"""Asks the questions of this folder, all or those named, and says in the end what was missed."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import scale
from answers import QUESTIONS, brief, figures_of, insert, load
from measure import HERE, add_quick, bound, shown
from plots import DOCS, TOLD, plots


def ask(question: str, results: Path, *, quick: bool = False) -> list[str]:
    """Run `question`; what it missed, one line each, or that it did not end with an answer.

    A `quick` run keeps no answer: it says only whether the question works.
    """
    before = load(question, results)
    command = [sys.executable, str(HERE / f"{question}.py"), *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=False)
    if quick:
        return [f"{question}: ended with exit code {done.returncode}"] if done.returncode else []
    answer = load(question, results)
    # Exit code 1 is a missed figure's, and also Python's own for a traceback.
    if answer is None or answer == before:
        return [f"{question}: ended with exit code {done.returncode} and no answer"]
    return [
        f"{question}: {f.name} is {shown(f.value)} {f.unit}, must be {bound(f.must)} or {f.better}"
        for f in figures_of(answer)
        if f.verdict == "MISSED"
    ]


def write_pages(results: Path) -> None:
    """Bring README.md, docs/performance.md, its plots, and docs/scaling-guide.md to what `results`
    says."""
    readme, page = HERE / "README.md", DOCS / "performance.md"
    readme.write_text(insert(readme.read_text(), results))
    page.write_text(insert(page.read_text(), results, TOLD, brief))
    guide = DOCS / "scaling-guide.md"
    guide.write_text(scale.insert(guide.read_text(), results))
    folder = DOCS / "performance"
    folder.mkdir(exist_ok=True)
    for name, svg in plots(results).items():
        (folder / name).write_text(svg)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help=f"any of: {', '.join(QUESTIONS)}"
    )
    add_quick(parser)
    options = parser.parse_args()
    wanted = options.questions or list(QUESTIONS)
    unknown = [q for q in wanted if q not in QUESTIONS]
    if unknown:
        parser.error(f"no question {unknown[0]!r}; there are: {', '.join(QUESTIONS)}")
    missed: list[str] = []
    for number, question in enumerate(wanted, 1):
        print(f"\n{number} of {len(wanted)}: {question}", flush=True)
        missed += ask(question, HERE / "results", quick=options.quick)
    if not options.quick:
        write_pages(HERE / "results")
    print()
    for line in missed:
        print(f"MISSED  {line}")
    if not missed:
        print("every question works" if options.quick else "every figure asked for is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
