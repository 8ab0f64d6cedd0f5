"""numba's cache of compiled kernels: what is in it, when it is stale, and a process that fills it in the background.

Compiling the kernels for a machine takes some 15 seconds, once for each weight format. Meanwhile `plain_step` computes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gpt3.inference.arrays import Weights
from gpt3.work_folder import locked

WAIT = "GPT3_COMPILE"
"""An environment variable: with the value wait, nothing is compiled in the background."""


def depend_on(functions: Mapping[str, Any], *modules: ModuleType) -> None:
    """Make the cached code of numba's functions stale, too, when a module that they compile from changes.

    numba itself looks at the file of a function alone. Where its cache has another form than is known here, that stays so.
    """
    files = [(module.__name__, Path(str(module.__file__)).stat()) for module in modules]
    stamps = tuple((name, stat.st_mtime, stat.st_size) for name, stat in files)
    for function in functions.values():
        file: Any = getattr(getattr(function, "_cache", None), "_cache_file", None)
        if hasattr(file, "_source_stamp"):
            file._source_stamp = (file._source_stamp, stamps)


def is_compiled(step: Any, dtype: Any) -> bool:
    """Whether the kernel of the whole model is compiled for this machine and layers of this dtype; True where nobody knows."""
    import numba

    try:
        index, here = step._cache._cache_file._load_index(), step.targetctx.codegen().magic_tuple()
        wanted, layers = numba.from_dtype(np.dtype(dtype)), Weights._fields.index("qkv")
        return any(kinds[0].types[layers].dtype == wanted and machine == here for kinds, machine, _ in index)
    except (AttributeError, TypeError, ValueError, IndexError, OSError):
        return True


def wanted(step: Any, dtype: Any) -> bool:
    """Whether a `Compilation` for weights of this dtype is to be started."""
    return os.environ.get(WAIT) != "wait" and not is_compiled(step, dtype)


class Compilation:
    """A process that compiles the kernels for a weight format. It ends on its own, also when the program has ended before."""

    def __init__(self, weight_format: str) -> None:
        # without the working folder, whose files could have the names of modules
        code = "import sys; sys.path[:] = filter(None, sys.path); "
        code += f"from gpt3.inference.kernel_cache import compile_kernels; compile_kernels({weight_format!r})"
        quiet: Any = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None


def compile_kernels(weight_format: str) -> None:
    """Run one token through a tiny model, so that numba compiles the kernels or finds them."""
    from gpt3.inference import kernels
    from gpt3.inference.cpu_engine import CpuEngine
    from gpt3.inference.engine import Run
    from gpt3.model_folder.stored import PlainConfig, StoredModel

    config = PlainConfig(
        vocab_size=2, max_position_embeddings=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=1,
        head_dim=32, intermediate_size=32, layer_types=("full_attention", "sliding_attention"),
    )  # fmt: skip
    zeros: dict[str, Any] = {name: partial(np.zeros, size, np.float32) for name, size in config.tensors().items()}
    nothing: Any = None
    engine = CpuEngine(StoredModel(config, zeros, nothing, None, 0, lambda: config), weight_format)
    cache = engine.new_cache(1, 8)
    with locked(
        Path(str(kernels.step.stats.cache_path)) / "compiling.lock", "", wait=True
    ):  # one at a time compiles, others read
        engine.forward(cache, [Run(0, [0])])
