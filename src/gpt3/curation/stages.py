"""Stages of work as files: each result is in a folder named by a hash of all that it depends on, and is renamed into place.

So a killed command resumes by being run again, changed settings make the stages that depend on them again and no others, and what
is written depends on neither timing nor the number of workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from gpt3.corpus.pool import share
from gpt3.progress import Progress


class Engine:
    """What shares work: processes of this machine, or the workers of an executor (`gpt3.curation.engines`).

    Args:
        workers: processes.
        executor: what takes the tasks in their place.
    """

    def __init__(self, workers: int, executor: Executor | None = None) -> None:
        self.workers, self.executor = workers, executor

    def run(
        self,
        make: Callable[..., Callable[[Any], Any]],
        arguments: tuple[Any, ...],
        items: Sequence[Any],
        progress: Progress,
    ) -> list[Any]:
        """``[make(*arguments, report)(item) for item in items]``, done in any order; see `gpt3.corpus.pool.share`."""
        remedy = "what is done is kept: run the same command again, with fewer --workers"
        return share(make, arguments, items, self.executor or min(self.workers, max(1, len(items))), progress, remedy)


def digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits that stand for a JSON object."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def place(work: Path, stage: str, identity: Mapping[str, Any]) -> Path:
    """The folder of a stage's results, made if need be: ``WORK/STAGE-HASH``.

    Args:
        identity: everything the results depend on, ready for JSON: settings, version of the code, hashes of the inputs.
    """
    folder = work / f"{stage}-{digest(identity)}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
