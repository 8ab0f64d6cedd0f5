"""How fast a model generates, compared with what the memory allows (`gpt3 generate --stats`).

A decoding step reads every weight once, whatever the number of rows in it. So with one row the limit is bandwidth over bytes of
weights. The bandwidth is measured at the same time, by reading alone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gpt3.device import Device
from gpt3.inference.decoding import DRAFT_TOKENS
from gpt3.inference.engine import Cache, Engine, Logits, Run
from gpt3.ladder.presets import readable_size
from gpt3.tables import counted

READ_BYTES = 1 << 28
"""Read repeatedly: more than the caches of most machines hold."""
READ_SECONDS = 0.5
PATIENCE_SECONDS = 2.0
NOTE = "compiling the kernels for this machine, once; some 15 seconds"


class Meter(Engine):
    """An engine that measures the forwards of another one.

    Args:
        engine: runs everything.

    Attributes:
        steps, tokens, seconds: forwards that only decode (every run has a row's newest token and a draft), the rows in them, and
            the time from the end of the previous forward to their end, choosing the tokens included.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.context, self.vocabulary = engine.context, engine.vocabulary
        self.device, self.nbytes = engine.device, engine.nbytes
        self.steps = self.tokens = 0
        self.seconds = 0.0
        self._last: float | None = None

    def new_cache(self, slots: int, capacity: int) -> Cache:
        """The engine's. A new request begins, which does not follow at once: the time until then is nobody's."""
        self._last = None
        return self.engine.new_cache(slots, capacity)

    def _forward(self, cache: Cache, runs: Sequence[Run]) -> Logits:
        decoding = all(cache.ids[run.slot] and 0 < len(run.tokens) <= 1 + DRAFT_TOKENS for run in runs)
        logits = self.engine._forward(cache, runs)
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(logits.device)
        now = time.perf_counter()
        if decoding and self._last is not None:
            self.steps += 1
            self.tokens += len(runs)
            self.seconds += now - self._last
        self._last = now
        return logits

    def non_finite_error(self) -> Exception:
        """The engine's."""
        return self.engine.non_finite_error()


def compiling() -> bool:
    """Whether a kernel was not in numba's cache, so that it is being compiled or was."""
    kernels = sys.modules.get("gpt3.inference.kernels")
    dispatchers = [x for x in vars(kernels).values() if hasattr(x, "stats")] if kernels is not None else []
    return any(dispatcher.stats.cache_misses for dispatcher in dispatchers)


@contextmanager
def told_when_compiling(tell: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Call `tell` from another thread if a kernel is compiled and that takes longer than PATIENCE_SECONDS.

    Yields:
        What ends the watch before the block does, once the first token is there.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PATIENCE_SECONDS):
            if compiling():
                tell(NOTE)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield over.set
    finally:
        over.set()


def warm_up(engine: Engine) -> None:
    """Run a prompt and a token through an engine, so that what happens once (compiling) is done."""
    length = min(64, engine.context - 1)
    cache = engine.new_cache(1, engine.context)
    if length:
        engine.forward(cache, [Run(0, [0] * length)])
    engine.forward(cache, [Run(0, [0])])


def bytes_per_step(engine: Any) -> int:
    """Bytes of weights that a step of decoding reads: all but the rows of the embeddings that are looked up.

    A head tied to the token embedding is read whole.
    """
    if hasattr(engine, "weights"):  # the CPU engine
        tied = engine.weights.head.ctypes.data == engine.weights.wte.ctypes.data
        return int(engine.nbytes - engine.weights.wpe.nbytes - (0 if tied else engine.weights.wte.nbytes))
    import torch

    embeddings = [module.weight for module in engine.model.modules() if isinstance(module, torch.nn.Embedding)]
    head = engine.model.get_output_embeddings()
    return int(engine.nbytes - sum(x.nbytes for x in embeddings if head is None or x is not head.weight))


def read_bandwidth(device: Device) -> float:
    """Bytes a second that all cores (or the GPU) get from memory when they only read; the best of READ_SECONDS."""
    import torch

    numbers = torch.ones(READ_BYTES // 4, device=str(device))
    best, end = 0.0, time.perf_counter() + READ_SECONDS
    while True:
        began = time.perf_counter()
        numbers.sum().item()
        now = time.perf_counter()
        best = max(best, READ_BYTES / (now - began))
        if now > end:
            return best


def peak_memory(device: Device) -> int | None:
    """Bytes this process held at most: on a GPU the tensors there, elsewhere resident memory (None on Windows)."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(str(device))
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def report(meter: Meter, first_token: float, drafted: int = 0, accepted: int = 0) -> list[str]:
    """Lines for a reader. Takes READ_SECONDS.

    Args:
        first_token: seconds from the start to the first token.
        drafted, accepted: `GenerationRequest.accepted`.
    """
    memory = peak_memory(meter.device)  # before the measurement below adds to it
    lines = [f"first token after {1000 * first_token:,.0f} ms"]
    if meter.steps and meter.seconds > 0:
        tokens = meter.tokens + accepted
        size = bytes_per_step(meter.engine)
        speed, roof = size * meter.steps / meter.seconds, read_bandwidth(meter.device)
        lines.append(
            f"decoding: {tokens / meter.seconds:,.1f} tokens/s "
            f"({counted(tokens, 'token')}, {counted(meter.steps, 'step')}, {meter.seconds:.2f} s)"
        )
        lines.append(
            f"weights: {readable_size(size)} a step, read at {speed / 1e9:,.1f} GB/s, "
            f"{speed / roof:.0%} of the {roof / 1e9:,.1f} GB/s measured here"
        )
    else:
        lines.append("decoding: no step after the first tokens, so no speed")
    if drafted:
        lines.append(f"draft: {accepted:,} of {drafted:,} guessed tokens were right ({accepted / drafted:.0%})")
    if memory is not None:
        lines.append(f"peak memory: {readable_size(memory)}")
    return lines
