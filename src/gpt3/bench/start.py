"""``gpt3 bench start``: from the start of a process to the end of a few greedy tokens of a small model, ours and its peers'."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.bench import harness
from gpt3.bench.generate import make_models, require_llama_cpp
from gpt3.bench.harness import Result
from gpt3.errors import InputError, RunError
from gpt3.ladder.presets import preset
from gpt3.options import Options, option
from gpt3.tables import markdown

WORKER = str(Path(__file__).with_name("start_worker.py"))
PROMPT = "The sea was"
SHOWN = {
    "gpt3": "gpt3 generate",
    "gpt3-first": "gpt3 generate, the first time on a machine",
    "transformers": "transformers' generate",
    "llama.cpp": "llama.cpp (xllamacpp)",
    "import gpt3": "Python, import gpt3",
    "import torch": "Python, import torch",
    "import transformers": "Python, import transformers.AutoModelForCausalLM",
}
IMPORTS = {
    "import gpt3": "import gpt3",
    "import torch": "import torch",
    "import transformers": "from transformers import AutoModelForCausalLM",
}
COMPILE = "from gpt3.inference.kernel_cache import compile_kernels; compile_kernels('fp32')"


@dataclass(frozen=True)
class BenchStartOptions(Options):
    """Time a whole process, from its start to the end of a few greedy tokens of a small model: this package and its peers."""

    model: str = option("demo", group="Case")
    """A preset of `gpt3 ladder`, with random weights in fp32."""
    new_tokens: int = option(20, least=1)
    """Tokens generated."""
    transformers: bool = option(True, group="Peers")
    """Compare with transformers' generate on the same folder."""
    llama_cpp: bool = False
    """Compare with llama.cpp (package xllamacpp): same shape and weights, but dense layers and tanh GELU."""
    rounds: int = option(3, least=1, group="Measurement")
    """Times each system is started; they alternate."""
    threads: int | None = option(None, least=1)
    """Threads of each system. Default: as many as torch uses, the physical cores."""
    seed: int = 1337
    """Seed of the weights."""
    json: bool = False
    """Print one JSON object with the times of each round instead of the table."""

    def errors(self) -> Iterator[str]:
        """What the ranges cannot express."""
        try:
            most = preset(self.model).context - len(PROMPT)
        except InputError as error:
            yield str(error)
            return
        if self.new_tokens > most:
            yield f"--new-tokens {self.new_tokens} does not fit {self.model}. Use at most {most}"

    def systems(self) -> list[str]:
        """What is measured, in order of turn."""
        peers = (["transformers"] if self.transformers else []) + (["llama.cpp"] if self.llama_cpp else [])
        imports = ["import gpt3", "import torch", *(["import transformers"] if self.transformers else [])]
        return ["gpt3", "gpt3-first", *peers, *imports]


def run(options: BenchStartOptions) -> None:
    """Measure every system and print.

    Raises:
        InputError: a package is not installed.
        RunError: a system fails; with its last lines of standard error.
    """
    from gpt3.inference.kernel_cache import WAIT

    require_llama_cpp(options.llama_cpp)
    facts = harness.machine(threads=options.threads)
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(folder, options.model, options.seed, ["fp32"] if options.llama_cpp else [])

        def measure(case: str, system: str, compiling: str = "") -> Result:
            kernels = tempfile.mkdtemp(dir=folder) if system == "gpt3-first" else str(Path(folder, "kernels"))
            more = {"OMP_NUM_THREADS": str(facts["threads"]), "NUMBA_CACHE_DIR": kernels, WAIT: compiling}
            line = command(system, models, options.new_tokens, facts["threads"])
            answer = timed_process(line, more, SHOWN[system])
            if system == "gpt3-first":  # what it compiles in the background is waited for: the next one has the machine
                timed_process([sys.executable, "-c", COMPILE], more, "compiling the kernels")
            return answer

        for system in options.systems():  # files are in the memory, and kernels in the cache, before anything is timed
            if system != "gpt3-first":
                measure(options.model, system, compiling="wait")
        found = harness.alternate(
            [options.model],
            options.systems(),
            options.rounds,
            measure,
            describe=lambda answer: f"{answer['seconds']:.2f} s",
        )
    results = [summary(case, system, answers) for (case, system), answers in found.items()]
    machine = {key: facts[key] for key in ("threads", "torch")}
    line = f"cpu, {facts['threads']} threads; torch {facts['torch']}; {options.new_tokens} greedy tokens of {options.model}"
    harness.print_results(options.json, machine, results, line, table(results))


def command(system: str, models: dict[str, str], new_tokens: int, threads: int) -> list[str]:
    """The command line of a system."""
    if system in IMPORTS:
        return [sys.executable, "-c", IMPORTS[system]]
    if system.startswith("gpt3"):
        how = ["--temperature", "0", "--max-new-tokens", str(new_tokens), "--min-new-tokens", str(new_tokens)]
        how += ["--device", "cpu", "--threads", str(threads), "--model", models["model"]]
        return [sys.executable, "-m", "gpt3", "generate", "--prompt", PROMPT, *how]
    place = models["model"] if system == "transformers" else str(Path(models["ggufs"], "f32.gguf"))
    return [sys.executable, WORKER, system, place, PROMPT, str(new_tokens), str(threads)]


def timed_process(command: Sequence[str], environment: dict[str, str], name: str) -> Result:
    """Run a command to its end.

    Args:
        environment: what is other than in this process.
        name: what is measured, for messages.

    Returns:
        seconds from its start to its end; first, to its first output, or None; cpu_seconds of all its threads, None on Windows;
        peak_bytes and anonymous_bytes (without mapped files), the most memory used, None where there is no /proc.

    Raises:
        RunError: it fails, or says another number of tokens than it was asked for; with its last lines of standard error.
    """
    with tempfile.TemporaryFile() as messages:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=messages, bufsize=0, env={**os.environ, **environment}
        )
        with harness.watched_memory(process.pid) as memory, process.stdout as output:  # type: ignore[union-attr]
            first = time.perf_counter() - began if output.read(1) else None
            while output.read(1 << 16):
                continue
            cpu = wait(process)
            seconds = time.perf_counter() - began
        messages.seek(0)
        said = messages.read().decode("utf-8", "replace")
    if process.returncode:
        raise RunError(f"{name} failed: {' | '.join(said.strip().splitlines()[-3:]) or 'without a message'}")
    wanted, written = tokens_of(command), re.search(r"([0-9,]+) tokens in ", said)
    if wanted is not None and (written is None or int(written[1].replace(",", "")) != wanted):
        raise RunError(f"{name} generated {written[1] if written else 'no'} tokens instead of {wanted}")
    return {
        "seconds": seconds,
        "first": first,
        "cpu_seconds": cpu,
        **memory,
    }


def tokens_of(command: Sequence[str]) -> int | None:
    """How many tokens a command line asks for, where it is to say that it made them."""
    if "--max-new-tokens" in command:
        return int(command[command.index("--max-new-tokens") + 1])
    return int(command[5]) if command[1] == WORKER else None


def wait(process: subprocess.Popen[bytes]) -> float | None:
    """Wait for the end of a process; its processor seconds, None on Windows."""
    if not hasattr(os, "wait4"):
        process.wait()
        return None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def summary(case: str, system: str, answers: Sequence[dict[str, Any]]) -> Result:
    """All rounds of a system."""
    keys = ("seconds", "first", "cpu_seconds")
    return {
        "case": case,
        "who": system,
        **{key: [answer[key] for answer in answers] for key in keys},
        **{key: harness.most(answer[key] for answer in answers) for key in ("peak_bytes", "anonymous_bytes")},
    }


def table(results: Sequence[Result]) -> str:
    """The results in Markdown: medians, the fastest and the slowest round; memory of the round with the most."""

    def median(values: Sequence[float | None]) -> str:
        known = [value for value in values if value is not None]
        return f"{statistics.median(known):.2f} s" if known else ""

    rows = [
        [
            SHOWN[r["who"]],
            f"{statistics.median(r['seconds']):.2f} s ({min(r['seconds']):.2f}-{max(r['seconds']):.2f})",
            median(r["first"]),
            median(r["cpu_seconds"]),
            harness.megabytes(r["peak_bytes"]),
            harness.megabytes(r["anonymous_bytes"]),
        ]
        for r in results
    ]
    headings = [
        "process",
        "start to end (fastest-slowest round)",
        "first output",
        "CPU time",
        "peak memory",
        "anonymous",
    ]
    return markdown(headings, rows)
