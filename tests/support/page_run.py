"""Runs a page's blocks: `python -P page_run.py STEPS.json`, in the folder that is the page's own.

Steps are objects: `kind` (python, file, pytest, script, sh, on_and_on, prints), `where`, `text`,
`name`. It ends with the first that fails, and says at which line of the page. Nothing of the tests
is imported here: the page's code finds what its reader would.
"""

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path


def main() -> None:
    steps = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path.insert(0, ".")
    namespace = {"__name__": "__page__"}
    running, printed = [], ""
    try:
        for step in steps:
            kind, text, name = step["kind"], step["text"], step["name"]
            print(f"--- {step['where']}: {kind}", file=sys.stderr, flush=True)
            if name:
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).write_text(text, encoding="utf-8")
            if kind == "python":
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile("\n" * (step["line"] - 1) + text, step["page"], "exec"), namespace)
                printed = out.getvalue()
            elif kind == "script":
                printed = ran([sys.executable, name])
            elif kind == "pytest":
                command = [sys.executable, "-m", "pytest", "-q", "-W", "error", name]
                printed = ran([*command, "-p", "no:cacheprovider"])
            elif kind == "sh":
                printed = ran(["bash", "-c", text])
            elif kind == "on_and_on":
                running.append((step["where"], subprocess.Popen(["bash", "-c", f"exec {text}"])))
            elif kind == "prints" and not re.search(step["pattern"], printed, re.S):
                sys.exit(f"{step['where']}: not what was printed, which is:\n{printed}")
    finally:
        codes = [(where, ended(process)) for where, process in reversed(running)]
    for where, code in codes:
        if code:
            sys.exit(f"{where}: it ended with {code}")


def ran(command: list) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"it ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def ended(process: subprocess.Popen) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return process.wait(60)


if __name__ == "__main__":
    main()
