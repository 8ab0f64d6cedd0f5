"""Where the recorder works: a scratch folder, commands run in it, and what they say without paths and times."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.recorder.record import Record, digest, stripped

T = TypeVar("T")
CODE = {"README.md", "LICENSE"}
"""Files of a model folder that hold prose; with its modelling files they may be reworded."""
LONGEST = 3600
"""Seconds a command may take."""
TIMES = (
    (re.compile(r"\b\d[\d,.]*(?= ?(s|ms|min|minutes|seconds|tokens/s|GFLOP/s|MB/s|GB/s)\b)"), "N"),
    (re.compile(r"\r[^\n]*"), ""),
    (re.compile(r"^.*\belapsed\b.*\n?", re.MULTILINE), ""),
    (re.compile(r"(cache/shards/[\w.-]+)-[0-9a-f]{16}"), r"\1-HASH"),
    (re.compile(r"\b(port|pid) \d+"), r"\1 N"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\.\d+\.partial"), ".PID.partial"),
    (re.compile(r"0x[0-9a-f]{6,}"), "0xADDRESS"),
)
"""What is taken out of prose."""


@dataclass(frozen=True)
class Answer:
    """What a command gave: its exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def data(self) -> Any:
        """Standard output as JSON: an object, or a list of those that stand one per line."""
        try:
            return json.loads(self.out)
        except ValueError:
            return [json.loads(line) for line in self.out.splitlines() if line.strip()]


class Workshop:
    """A scratch folder `root`, in which commands run with `threads` threads each, at most `jobs` at a time."""

    def __init__(self, root: Path, threads: int, jobs: int) -> None:
        self.root, self.threads, self.jobs = root.resolve(), threads, jobs
        self.root.mkdir(parents=True, exist_ok=True)
        self.environment = environment(self.root, threads)

    def gpt3(self, *words: object, given: str = "", **variables: str) -> Answer:
        """Run ``gpt3 WORDS`` in the scratch folder, `given` as its standard input."""
        command = [sys.executable, "-m", "gpt3", *map(str, words)]
        variables = {**self.environment, **variables}
        try:
            done = subprocess.run(
                command, cwd=self.root, env=variables, input=given.encode("utf-8"), capture_output=True, timeout=LONGEST
            )
        except subprocess.TimeoutExpired:
            return Answer(-1, "", f"not done after {LONGEST} seconds")
        return Answer(done.returncode, self.clean(done.stdout), self.clean(done.stderr))

    def start(self, *words: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start ``gpt3 WORDS`` and do not wait for it."""
        command = [sys.executable, "-m", "gpt3", *map(str, words)]
        return subprocess.Popen(command, cwd=self.root, env=self.environment, **options)

    def clean(self, text: bytes) -> str:
        """Text without what differs from place to place and from time to time."""
        shown = text.decode("utf-8", "replace").replace(str(self.root), "WORK").replace(sys.prefix, "PYTHON")
        for path in self.environment["PYTHONPATH"].split(os.pathsep):
            shown = shown.replace(path, "CODE") if len(path) > 1 else shown
        for pattern, instead in TIMES:
            shown = pattern.sub(instead, shown)
        return shown

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """The file or folder `name` of the scratch folder, made at its first use.

        Raises:
            RuntimeError: `make` ran a command that failed.
        """
        path = self.root / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            done = make(path)
            if isinstance(done, Answer) and done.code:
                raise RuntimeError(f"{name} could not be made: {done.err[-1500:]}")
        return path

    def all(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """What each of `works` returns, some done at the same time."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda work: work(), works))


def cut(line: str) -> list[str]:
    """A command line's words."""
    return line.split()


def environment(root: Path, threads: int) -> dict[str, str]:
    """Variables for commands: fixed threads, no network, nothing of the user's own."""
    source = os.environ.get("PYTHONPATH") or str(Path(__file__).parents[2] / "src")
    number = str(threads)
    fixed = {
        "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in source.split(os.pathsep) if path),
        "OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "NUMBA_NUM_THREADS": number, "OPENBLAS_NUM_THREADS": number,
        "RAYON_NUM_THREADS": number, "PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false",
        "GPT3_CACHE": str(root / "cache"), "HF_HOME": str(root / "hf"), "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    dropped = ("GPT3_API_KEY", "RANK", "WORLD_SIZE", "LOCAL_RANK", "FORCE_COLOR")
    return {**{name: value for name, value in os.environ.items() if name not in dropped}, **fixed}


def note(record: Record, key: str, answer: Answer, data: Any = None) -> None:
    """Record what a command gave: exit code and `data` as what counts, the rest as prose."""
    record.add(key, {"exit": answer.code, **({} if data is None else {"data": data})})
    prose = {"out": "" if data is not None else answer.out, "err": answer.err}
    if any(prose.values()):
        record.words(key, prose)


def files(record: Record, w: Workshop, key: str, folder: Path) -> None:
    """Record the hash of each file below `folder`; prose and modelling files apart."""
    found, prose = {}, {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if not path.is_file():
            continue
        name = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
        if path.name in CODE or path.suffix == ".py":
            prose[name] = digest(path.read_bytes())
        else:
            found[name] = content(w, path)
    record.add(key, found)
    if prose:
        record.words(key, prose)


def content(w: Workshop, path: Path) -> Any:
    """What stands for a file: the hash of its bytes; of weights also that of the tensors; of JSON without times and paths."""
    data = path.read_bytes()
    if path.suffix == ".json" and path.name != "tokenizer.json":
        found = json.loads(w.clean(data))
        if path.name == "adapter_config.json":  # a set, written in any order
            found["target_modules"] = sorted(found["target_modules"])
        return digest(json.dumps(stripped(found), sort_keys=True))
    if path.suffix == ".safetensors":
        return {"file": digest(data), "tensors": tensors(path)}
    return digest(data)


def tensors(path: Path) -> str:
    """The hash of a file's tensors by name, whatever their order and the file's header."""
    from safetensors import safe_open

    parts: list[str] = []
    with safe_open(str(path), "pt") as file:
        for name in sorted(file.keys()):
            value = file.get_tensor(name).contiguous()
            raw = value.flatten().view(dtype=_bytes()).numpy().tobytes() if value.ndim else bytes(str(value), "ascii")
            parts.append(f"{name} {value.dtype} {tuple(value.shape)} {digest(raw)}")
    return digest("\n".join(parts))


def _bytes() -> Any:
    import torch

    return torch.uint8
