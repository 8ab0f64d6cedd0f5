"""What every speed measurement shares: cases, workers in processes of their own, alternating rounds, tables.

A *case* is a model and a load. A *system* is this package, in some format of the weights, or one of its peers. A *measurement*
is what a worker returns for one system in one case. The scripts in benchmarks/ use this module, too. Nothing here imports torch
before a worker runs.
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gpt3.errors import InputError, RunError
from gpt3.ladder.presets import preset
from gpt3.progress import say

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

C = TypeVar("C", bound=Hashable)
S = TypeVar("S", bound=Hashable)
M = TypeVar("M")
Request = dict[str, Any]
Result = dict[str, Any]
"""What ``--json`` prints of one system in one case; docs/speed.md lists the keys."""
FORMATS = ("fp32", "fp16", "bf16", "int8", "int4")
"""Of weights; llama.cpp's int8 is its q8_0, its int4 q4_0."""
USERS_MISTAKE = f"{InputError.__module__}.{InputError.__name__}: "
"""How the last line of a traceback begins."""
WATCH_SECONDS = 0.02
"""Between two looks at the memory of a process."""
READ_BYTES = 1 << 29
"""Size of the array that is read to measure the memory bandwidth: larger than any cache."""


class Case(NamedTuple):
    """A model and its load, written MODEL:BATCHxCONTEXT."""

    model: str
    """A preset of `gpt3 ladder`."""
    batch: int
    """Sequences at a time."""
    context: int
    """Tokens of each."""

    def __str__(self) -> str:
        return f"{self.model}:{self.batch}x{self.context}"


class System(NamedTuple):
    """What generates text: this package or a peer, with weights in some format."""

    name: str
    weights: str = "fp32"
    """One of FORMATS."""

    def __str__(self) -> str:
        return f"{self.name} {self.format}"

    @property
    def format(self) -> str:
        """The format of the weights as the system calls it."""
        llama_cpp = {"int8": "q8_0", "int4": "q4_0"} if self.name == "llama.cpp" else {}
        return llama_cpp.get(self.weights, self.weights)


def parse_case(text: str, new_tokens: Callable[[Case], int] = lambda case: 0) -> Case:
    """A case from ``MODEL:BATCHxCONTEXT``.

    Args:
        new_tokens: how many tokens are generated after the context.

    Raises:
        InputError: another form, an unknown model, or more tokens than its positions.
    """
    found = re.fullmatch(r"(.+):([1-9][0-9]*)x([1-9][0-9]*)", text)
    if not found:
        raise InputError(f"--cases {text!r} is not MODEL:BATCHxCONTEXT. Write for example 17M:12x512")
    shape = preset(found[1])
    case = Case(shape.name, int(found[2]), int(found[3]))
    if case.context + (new := new_tokens(case)) > shape.context:
        tokens = f"{case.context:,} tokens{f' and {new:,} generated ones' if new else ''}"
        raise InputError(
            f"--cases {text}: {tokens} exceed the {shape.context:,} positions of {shape.name}. Use fewer, or a larger model"
        )
    return case


def case_errors(cases: Iterable[str], new_tokens: Callable[[Case], int] = lambda case: 0) -> Iterator[str]:
    """A message for each case that `parse_case` refuses."""
    for text in cases:
        try:
            parse_case(text, new_tokens)
        except InputError as error:
            yield str(error)


def gpt2_shape(model: str) -> dict[str, int]:
    """The shape of a preset in the words of GPT-2's configuration, which all peers share."""
    shape = preset(model)
    return {"n_layer": shape.n_layers, "n_head": shape.n_heads, "n_embd": shape.d_model, "vocab_size": shape.vocab_size}


def checkout_errors(nanogpt: str | None) -> Iterator[str]:
    """A message if --nanogpt is given and not a checkout of nanoGPT."""
    if nanogpt is not None and not (Path(nanogpt) / "model.py").is_file():
        yield f"--nanogpt {nanogpt} has no model.py. Clone github.com/karpathy/nanoGPT and give its folder"


def call(
    worker: str, request: Request, name: str, *, threads: int | None = None, python: str | None = None
) -> dict[str, Any]:
    """Run a worker in a process of its own, so that no measurement inherits memory, threads or warm caches.

    Args:
        worker: a file that reads its request, a line of JSON, from standard input and prints its answer as JSON in the last line.
        name: what is measured, for messages.
        threads: of OpenMP; None: its own default.
        python: another Python executable, which does not get this one's PYTHONPATH.

    Returns:
        Its answer; with anonymous_bytes, as `watched_memory` gives them, where it tells its peak_bytes.

    Raises:
        InputError: that is what it ended with.
        RunError: it fails otherwise; with the last lines of its standard error.
    """
    environment = {key: value for key, value in os.environ.items() if python is None or key != "PYTHONPATH"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [python or sys.executable, worker]
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with (
        subprocess.Popen(command, **pipes, text=True, env=environment) as process,
        watched_memory(process.pid) as memory,
    ):
        output, messages = process.communicate(json.dumps(request))
    if process.returncode:
        lines = messages.strip().splitlines()[-3:]
        if lines and lines[-1].startswith(USERS_MISTAKE):
            raise InputError(lines[-1].removeprefix(USERS_MISTAKE))
        raise RunError(f"{name} failed: {' | '.join(lines) or 'without a message'}")
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    if isinstance(answer, dict) and "peak_bytes" in answer:
        answer["anonymous_bytes"] = memory["anonymous_bytes"]
    return answer


@contextmanager
def watched_memory(process: int) -> Iterator[dict[str, int | None]]:
    """The most memory that another process uses while the block runs: peak_bytes, and of them anonymous_bytes (no mapped files).

    Both are None where there is no /proc. Not rusage's maximum, which on Linux counts the process that started the other, too.
    """
    found: dict[str, int | None] = {"peak_bytes": None, "anonymous_bytes": None}
    names = {"VmHWM": "peak_bytes", "RssAnon": "anonymous_bytes"}
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            with suppress(OSError):
                for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace").splitlines():
                    name, _, value = line.partition(":")
                    if name in names:
                        found[names[name]] = max(found[names[name]] or 0, int(value.split()[0]) << 10)
            done.wait(WATCH_SECONDS)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield found
    finally:
        done.set()
        watching.join()


def answer_request(work: Callable[[Request], Any]) -> None:
    """The body of a worker: read the request, print what `work` returns, and exit even if a peer's threads still run."""
    sys.path.pop(0)  # this folder, whose modules could hide those of a peer
    code = 1
    try:
        print("\n" + json.dumps(work(json.loads(sys.stdin.readline()))), flush=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def alternate(
    cases: Iterable[C],
    systems: Sequence[S],
    rounds: int,
    measure: Callable[[C, S], M],
    *,
    describe: Callable[[M], str] | None = None,
    after_round: Callable[[], object] = lambda: None,
) -> dict[tuple[C, S], list[M]]:
    """Measure the systems in turn, round by round, so that a machine that becomes slower does so for all of them.

    Args:
        describe: of a measurement for a message to the user; None: no messages.
        after_round: called after each round.

    Returns:
        The measurements of each system in each case, one per round.
    """
    found: dict[tuple[C, S], list[M]] = {}
    for case in cases:
        for number in range(1, rounds + 1):
            for system in systems:
                measurement = measure(case, system)
                found.setdefault((case, system), []).append(measurement)
                if describe is not None:
                    say(f"{label(case)}, round {number} of {rounds}: {label(system)}, {describe(measurement)}")
            after_round()
    return found


def label(name: object) -> str:
    """A case or a system for people; the parts of a tuple are separated by spaces."""
    return " ".join(map(str, name)) if type(name) is tuple else str(name)


def common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items two sequences have in common before the first difference."""
    differences = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differences, min(len(one), len(other)))


def spread(rounds: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The median of all values, and the smallest and the largest median of a round."""
    medians = [statistics.median(values) for values in rounds]
    return statistics.median([value for values in rounds for value in values]), min(medians), max(medians)


def rates(tokens: int, rounds: Sequence[Sequence[float]]) -> Result:
    """Tokens/s from the seconds that `tokens` took: tokens_per_s by the median, and of the slowest and fastest round."""
    median, least, most = spread(rounds)
    return {"tokens_per_s": tokens / median, "slowest": tokens / most, "fastest": tokens / least}


def rate_cell(result: Result, digits: int = 1) -> str:
    """`rates` as a cell of a table."""
    median, slowest, fastest = (f"{result[key]:,.{digits}f}" for key in ("tokens_per_s", "slowest", "fastest"))
    return f"{median} ({slowest}-{fastest})"


def machine(
    device: str = "cpu", dtypes: Sequence[str] = ("fp32",), threads: int | None = None, memory: bool = False
) -> dict[str, Any]:
    """This machine's speed now, measured in a process of its own; see `measure_machine`."""
    request = {"device": device, "dtypes": list(dtypes), "threads": threads, "memory": memory}
    return call(__file__, request, "measuring the machine", threads=threads)


def measure_machine(request: Request) -> dict[str, Any]:
    """Device and versions, FLOP/s of plain matrix products as `gpt3 train` measures them, bytes/s of one pass over memory.

    Args:
        request: `device`, `dtypes` (of the products), `threads` (or None), `memory` (whether to measure its bandwidth).
    """
    import torch

    from gpt3.training.distributed import choose_compute, gemm_flops

    if request["threads"]:
        torch.set_num_threads(request["threads"])
    compute = choose_compute(request["device"], "auto")
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    found: dict[str, Any] = {
        "device": str(compute.device),
        "device_name": torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "auto": next((name for name, dtype in dtypes.items() if dtype == compute.dtype), "fp32"),
        "gemm_flops": {name: gemm_flops(compute.device, dtypes[name], seconds=1.0) for name in request["dtypes"]},
    }
    if request["memory"]:
        data, seconds = torch.ones(READ_BYTES // 4, device=compute.device), []
        for _ in range(8):
            compute.synchronize()
            start = time.perf_counter()
            data.amax()
            compute.synchronize()
            seconds.append(time.perf_counter() - start)
        found["read_bytes_per_s"] = READ_BYTES / min(seconds)
    return found


def cpu_seconds(process: int) -> float | None:
    """Processor seconds of another process, all threads together; None where the system does not report it (all but Linux)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return None


def random_ids(seed: int, vocabulary: int, rows: int, length: int) -> list[list[int]]:
    """Ids below `vocabulary`, (rows, length); the same for the same arguments."""
    generator = random.Random(seed)
    return [generator.choices(range(vocabulary), k=length) for _ in range(rows)]


def load_model(folder: str | None, weights: str, device: str = "cpu") -> LanguageModel:
    """This package's model with weights in one of FORMATS, which generates past EOS."""
    from gpt3.inference.language_model import load

    kind = {"quantize": weights} if weights in ("int8", "int4") else {"dtype": weights}
    model = load(folder, device=device, **kind)
    model.ends = set()
    return model


def times(result: Result, results: Iterable[Result], who: str, **changes: str) -> str:
    """How many times as fast a result is as the fastest of some systems, as a cell of a table; empty where there is none.

    Args:
        who: how the names of these systems begin.
        changes: where their case, decoding or format is another than the result's.
    """
    wanted = {key: result.get(key) for key in ("case", "decode", "weights")} | changes
    others = [other for other in results if other["who"].startswith(who)]
    speeds = [other["tokens_per_s"] for other in others if all(other.get(key) == wanted[key] for key in wanted)]
    return f"{result['tokens_per_s'] / max(speeds):.2f}" if speeds else ""


def most(values: Iterable[float | None]) -> Any:
    """The largest of the values that are known; None where none is."""
    return max((value for value in values if value is not None), default=None)


def gigabytes(size: int | None) -> str:
    """A size in bytes as a cell of a table; empty where it is unknown."""
    return "" if size is None else f"{size / 1e9:.2f} GB"


def megabytes(size: int | None) -> str:
    """A size in bytes as a cell of a table, in megabytes; empty where it is unknown."""
    return "" if size is None else f"{size / 1e6:,.0f} MB"


def print_results(as_json: bool, machine: Result, results: list[Result], line: str, table: str) -> None:
    """Print the measurements as one JSON object, or the table below a line about the machine."""
    print(json.dumps({"machine": machine, "results": results}, indent=2) if as_json else f"\n{line}\n\n{table}")


if __name__ == "__main__":
    answer_request(measure_machine)
