"""Record what the package does, and compare two records.

    python -m benchmarks.recorder record before.json             # all parts, about 20 minutes on two idle cores
    python -m benchmarks.recorder record after.json --only texts,commands
    python -m benchmarks.recorder compare before.json after.json # exit code 1 when anything but wording differs
    python -m benchmarks.recorder compact before.json small.json # long values as hashes

It uses the command line, the HTTP server, the files that are written, and the public Python API, so that it runs unchanged
when modules inside the package are moved or renamed. PYTHONPATH chooses the code (default: this repository's src).
GPT3_RECORDER_DATA may name a folder of task files, as ``gpt3 eval --data-dir`` takes them; a few rows of each are then scored,
too. Records are comparable on one machine with the same number of threads; the header of a record names both.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.recorder import models
from benchmarks.recorder.compare import compare, write_compact
from benchmarks.recorder.record import Record, header
from benchmarks.recorder.workshop import Workshop

PARTS = ("training", "texts", "scores", "files", "server", "commands")


def main() -> int:
    """Run one of the three commands; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recorder", description=(__doc__ or "").split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    make = kinds.add_parser("record", help="run everything and write what was observed")
    make.add_argument("out", type=Path)
    make.add_argument("--only", help=f"parts, with commas between: {', '.join(PARTS)}")
    make.add_argument("--threads", type=int, default=1, help="threads of each command (default 1)")
    make.add_argument("--jobs", type=int, default=2, help="commands run at the same time (default 2)")
    make.add_argument(
        "--work", type=Path, help="scratch folder, kept; models in it are used again (default: a temporary one)"
    )
    both = kinds.add_parser("compare", help="compare two records")
    both.add_argument("first", type=Path)
    both.add_argument("second", type=Path)
    both.add_argument("--differences", action="store_true", help="print only what differs, wording left out")
    small = kinds.add_parser("compact", help="write a record with long values as hashes")
    small.add_argument("record", type=Path)
    small.add_argument("out", type=Path)
    given = parser.parse_args()
    if given.kind == "compare":
        return 1 if compare(given.first, given.second, given.differences) else 0
    if given.kind == "compact":
        write_compact(given.record, given.out)
        return 0
    parts = given.only.split(",") if given.only else list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--only {unknown[0]} is unknown; the parts are {', '.join(PARTS)}")
    out = given.out.resolve()
    root = given.work or Path(tempfile.mkdtemp(prefix="gpt3-record-"))
    try:
        observe(parts, out, Workshop(root, given.threads, given.jobs))
    finally:
        if given.work is None:
            shutil.rmtree(root, ignore_errors=True)
    return 0


def observe(parts: list[str], out: Path, workshop: Workshop) -> None:
    """Record the parts, one after another, and write the record after each."""
    os.environ.update(workshop.environment)  # before torch and numba start
    sys.path[:0] = workshop.environment["PYTHONPATH"].split(os.pathsep)
    record = Record()
    with record.attempt("warm"):
        models.warm(workshop)
    for number, part in enumerate(parts, 1):
        began = time.monotonic()
        with record.attempt(part):
            importlib.import_module(f"benchmarks.recorder.{part}").observe(record, workshop)
        print(f"{part}: {time.monotonic() - began:.0f} s, {len(record.entries)} entries so far", file=sys.stderr)
        record.write(out, header(parts[:number], workshop.threads))


if __name__ == "__main__":
    sys.exit(main())
