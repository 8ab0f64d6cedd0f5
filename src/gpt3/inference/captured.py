"""Work of a CUDA GPU that is captured once as a graph, and replayed: a forward pass of few tokens is mostly launches of kernels.

A graph has fixed shapes and reads the same memory each time. So prompts are filled up to one of a few lengths, and batches to one
of a few sizes: a new length is no new graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gpt3.inference.engine import Run

SHORTEST = 16
"""Tokens that a captured prompt is filled up to at least."""
MOST_TOKENS = 4096
"""Tokens of prompts that are captured, what fills up included. More keep a GPU busy without; a graph holds its activations."""


def captures(device: torch.device) -> bool:
    """Whether work on this device can be captured."""
    return device.type == "cuda"


def capture(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """A function that does what `work` does now. The tensor that it returns is overwritten by the next call.

    Args:
        work: reads tensors that stay where they are, and decides nothing by their content. What it writes while it is captured
            is written again by the first call.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # what is allocated at the first use, such as cuBLAS's workspace
        for _ in range(2):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # on this device's stream; other threads may use theirs while it is captured
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        result = work()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def padded(length: int) -> int:
    """The length that a prompt is filled up to: SHORTEST, or the next power of two, or one and a half of one."""
    most = max(SHORTEST, 1 << (length - 1).bit_length())
    return 3 * most // 4 if most > SHORTEST and length <= 3 * most // 4 else most


def padded_shape(rows: int, length: int, context: int) -> tuple[int, int] | None:
    """Rows (a power of two) and length of the captured pass that reads this many prompts; None: it is not captured.

    Args:
        length: of the longest prompt.
        context: tokens that a prompt may have.
    """
    shape = 1 << (rows - 1).bit_length(), min(padded(length), context)
    return shape if shape[0] * shape[1] <= MOST_TOKENS else None


def filled(runs: Sequence[Run], rows: int, length: int) -> list[list[int]]:
    """Prompts as (rows, length + 2) numbers: slot, place of the last token, tokens, zeros.

    Rows without a prompt repeat the last one: they write the same values to the same places once more.
    """
    lines = [[run.slot, len(run.tokens) - 1, *run.tokens, *[0] * (length - len(run.tokens))] for run in runs]
    return lines + [lines[-1]] * (rows - len(lines))
