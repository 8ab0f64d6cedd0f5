"""A measurement in a process of its own, so that none inherits another's memory, threads or warm caches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpt3.errors import RunError


def call(
    worker: str,
    request: dict[str, Any],
    folder: Path,
    shown: str,
    python: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Run ``python WORKER REQUEST.json`` from start to end.

    Args:
        worker: a file that prints its answer as JSON on the last line.
        request: what it is told.
        folder: for the request's file.
        shown: the contender's name, for messages.
        python: another Python; it gets no PYTHONPATH, since this one's packages are not its own.
        threads: of OpenMP in the process; None: as many as it takes by itself.

    Raises:
        RunError: it fails; with the last lines it said.
    """
    path = folder / "request.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    environment = dict(os.environ)
    if python is not None:
        environment.pop("PYTHONPATH", None)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [python or sys.executable, worker, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = " | ".join(done.stderr.strip().splitlines()[-3:]) or f"exit code {done.returncode}"
        raise RunError(f"{shown} failed: {said}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
