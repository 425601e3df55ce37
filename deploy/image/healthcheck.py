"""The image's health check: whether the role that runs here says of itself that it lives.

`healthcheck.py [PATH]` asks PATH (`/healthz`; `/readyz` for readiness) on the metrics port, which
workers and schedulers serve, and on the console's. Exit code 0: one of them said yes; 1: none did.
"""

from __future__ import annotations

import http.client
import os
import sys

#: Shorter than the check's own limit, for both ports together.
TIMEOUT_S = 2.0
#: What the image and the settings have by default.
PORTS = {"TASKMILL_METRICS_PORT": "9464", "TASKMILL_CONSOLE_PORT": "8420"}


def answer(port: int, path: str) -> str:
    """What the server on `port` says to GET `path`: its status, or why there was none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def main() -> int:
    """Ask each port; the exit code."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    told = []
    for name, usual in PORTS.items():
        port = os.environ.get(name) or usual
        said = answer(int(port), path)
        if said == "200":
            return 0
        told.append(f"{port}: {said}")
    print(f"{path}: {', '.join(told)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
