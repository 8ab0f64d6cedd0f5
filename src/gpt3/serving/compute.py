"""The one thread that computes, for each served model in turn."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from gpt3.serving.worker import Worker


class ComputeThread:
    """Goes round the workers of all models, a step each.

    It is one thread whatever the number of models: a step takes all cores anyway, and the OpenMP library gives each thread that
    computes helpers of its own. When these are more than there are cores, they sleep after each loop in place of waiting for
    the next one, and a small model's step takes three times as long.

    Args:
        workers: one per model.
        bell: what they notify when their queues change.
    """

    def __init__(self, workers: Sequence[Worker], bell: threading.Condition) -> None:
        self.workers, self.bell = workers, bell
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="gpt3-compute", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """End the thread. Requests that are not done are answered that the server stops."""
        for worker in self.workers:
            worker.drain(0)
        with self.bell:
            self._closing = True
            self.bell.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        while True:
            with self.bell:
                self.bell.wait_for(lambda: self._closing or any(worker.has_work for worker in self.workers))
                busy = [worker for worker in self.workers if worker.has_work]
            if not busy:
                return
            for worker in busy:
                worker.turn(alone=len(busy) == 1)
