"""The command line: thin subcommands over importable functions. Nothing heavy is imported before a command is chosen.

Exit codes: 0 did the job; 2 bad input, reported in one line; 1 failed at run time; 130 or 143 interrupted (work saved).
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpt3 import __version__
from gpt3.cli.parsing import parse
from gpt3.device import ran_out_of_memory
from gpt3.errors import InputError, RunError
from gpt3.progress import drop_output, open_streams, say

OUT_OF_MEMORY = "Out of memory. Close other programs, or use a smaller model, batch or context."
LIMITS = {
    errno.ENOSPC: "Free some space, or write to another disk.",
    errno.EDQUOT: "Free some space, or write to another disk.",
    errno.EFBIG: "Raise the limit (ulimit -f), or write to another disk.",
    errno.EIO: "Check the disk.",
    errno.EMFILE: "Raise the limit (ulimit -n).",
    errno.ENFILE: "Close other programs.",
    errno.ENOMEM: OUT_OF_MEMORY,
}
"""What to do where the system refuses."""


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    function: str
    """``MODULE`` for its `run`, or ``MODULE:NAME``: takes the command's options. Importing the module loads nothing heavy."""
    summary: str
    """The line that ``gpt3 --help`` shows."""
    positional: str | None = None
    """The option that may be given without its name."""

    def load(self) -> tuple[type[Any], Callable[[Any], Any]]:
        """The class of its options, which the function names as the type of its argument, and the function."""
        name, _, function = self.function.partition(":")
        module = importlib.import_module(name)
        run = getattr(module, function or "run")
        return getattr(module, run.__annotations__["options"]), run


GROUPS = {
    "train": {
        "train": Command("gpt3.cli.train", "pretrain a model; without options: the demo, minutes on a laptop"),
        "finetune": Command("gpt3.cli.finetune", "make a base model an assistant: conversations, then preferences"),
        "report": Command("gpt3.cli.report", "draw runs into one HTML file: curves, samples, settings", "runs"),
        "ladder": Command("gpt3.cli.ladder", "the paper's models: shapes, parameters, compute, memory"),
    },
    "use a model": {
        "generate": Command("gpt3.cli.generate", "continue a text", "prompt"),
        "chat": Command("gpt3.cli.chat", "talk with a fine-tuned model in the terminal", "model"),
        "serve": Command("gpt3.cli.serve", "OpenAI's API and a Playground in the browser", "model"),
        "score": Command("gpt3.cli.score", "how well a model predicts texts: bits per byte, perplexity", "files"),
        "eval": Command("gpt3.cli.evaluate", "zero-, one- and few-shot tasks, scored as in the paper", "model"),
        "paper": Command("gpt3.cli.paper", "repeat the paper's experiments on this machine, on one page", "figures"),
    },
    "data": {
        "data": Command("gpt3.cli.data", "look at data before training: amounts, lengths, fields, warnings", "data"),
        "prepare": Command("gpt3.cli.prepare", "turn documents into token shards"),
        "corpus": Command("gpt3.cli.corpus", "filter, deduplicate and mix raw text into training text", "recipe"),
        "corpus worker": Command("gpt3.cli.corpus:work", "work for a gpt3 corpus on another machine", "out"),
        "tokenizer train": Command("gpt3.cli.tokenizer", "train a byte-level BPE"),
        "contamination": Command("gpt3.cli.contamination", "which benchmark examples appear in the training text"),
    },
    "other formats": {
        "import": Command(
            "gpt3.cli.formats:import_model", "convert GPT-2, GPT-Neo, OPT, … to a gpt3 model folder", "source"
        ),
        "export": Command("gpt3.cli.formats:export", "write a model as GGUF (llama.cpp), stock GPT-2 or GPT-Neo"),
        "publish": Command("gpt3.cli.publish", "put a model with card, results and GGUF files on the hub", "names"),
        "info": Command("gpt3.cli.info", "describe a model: shape, parameters, tokenizer, files", "path"),
    },
    "this machine": {
        "doctor": Command("gpt3.cli.doctor", "device, threads, measured peaks, memory, extras, caches, versions"),
        "runs": Command("gpt3.cli.runs", "list runs: state, size, latest figures", "folder"),
        "runs rename": Command("gpt3.cli.runs:rename", "give a run another name", "names"),
        "runs remove": Command("gpt3.cli.runs:remove", "remove runs and their checkpoints", "names"),
        "completion": Command("gpt3.cli.completion", "print a script for tab completion: bash, zsh, fish", "shell"),
    },
    "measure speed": {
        "bench train": Command("gpt3.bench.train", "training steps: ours, nanoGPT, transformers, litGPT"),
        "bench generate": Command("gpt3.bench.generate", "generation: ours, transformers, llama.cpp, nanoGPT"),
        "bench serve": Command("gpt3.bench.serve", "the server with many clients: ours, transformers, llama.cpp"),
        "bench start": Command(
            "gpt3.bench.start", "from the start of a process to its text: ours, transformers, llama.cpp"
        ),
        "bench contexts": Command("gpt3.bench.tradeoffs:run_contexts", "time and cache per token as the context grows"),
        "bench formats": Command(
            "gpt3.bench.tradeoffs:run_formats", "what each weight format changes in quality", "text"
        ),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def usage() -> str:
    """The text of ``gpt3 --help``."""
    width = max(map(len, COMMANDS)) + 2
    lines = ["usage: gpt3 COMMAND [OPTIONS]", "", "GPT-3 as its paper describes it, runnable."]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:<{width}}{command.summary}" for name, command in commands.items())]
    lines += ["", "`gpt3 COMMAND --help` lists a command's options; `gpt3 --version` prints the version."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"] and len(words) > 1:  # gpt3 help train
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help", "help", "--version"):
        print(f"gpt3 {__version__}" if words[:1] == ["--version"] else usage())
        return 0
    name = words[0]
    try:
        try:
            name, rest = _command(words)
            kind, run = COMMANDS[name].load()
            options = parse(kind, rest, command=name, positional=COMMANDS[name].positional)
            result = None if options is None else run(options)
            return result if isinstance(result, int) else 0
        finally:
            sys.stdout.flush()  # an output that cannot be written is an error of the command, not of Python's last moment
    except (InputError, RunError) as error:
        say(f"gpt3 {name}: {error}".replace("\n", "\\n"))  # one line, even where a file's name has two
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        say(f"gpt3 {name}: interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output went away: not an error of this program
        drop_output()
        return 0
    except Exception as error:
        if (told := _limit(error)) is None:
            raise
        say(f"gpt3 {name}: {told}")
        return 1


def _limit(error: Exception) -> str | None:
    """In one line, which limit of the system `error` tells of: disk, memory, files, a path, no home; None for other errors."""
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # pathlib's
        return "No home directory is known. Set HOME and GPT3_CACHE, and write paths without ~."
    if isinstance(error, MemoryError) or ("torch" in sys.modules and ran_out_of_memory(error)):
        return OUT_OF_MEMORY
    code, name = _code(error), getattr(error, "filename", None)
    if code is None or (name is None and code not in LIMITS):
        return None
    try:
        sys.stdout.flush()
    except OSError:
        drop_output()
    place = "standard output or a file" if name is None else name
    return f"{place}: {os.strerror(code)}. {LIMITS.get(code, 'Use another path.')}"


def _code(error: Exception) -> int | None:
    """The system's number of an error, also where a library only writes of it: those in Rust, and NumPy."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        return int(found[1])
    return errno.ENOSPC if re.search(r"\d+ requested and \d+ written", str(error)) else None


def _command(words: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one or two words, and what follows it."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, words[count:]
    family = [name for name in COMMANDS if name.split()[0] == words[0]]
    if family:
        raise InputError(f"needs one of: {', '.join(name.split()[1] for name in family)}")
    near = difflib.get_close_matches(words[0], COMMANDS, n=1)
    raise InputError(
        "unknown command; " + (f"did you mean `gpt3 {near[0]}`?" if near else "`gpt3 --help` lists them all")
    )
