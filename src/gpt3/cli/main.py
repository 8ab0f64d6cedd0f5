"""The command line: thin subcommands over importable functions. Nothing heavy is imported before a command is chosen.

Exit codes: 0 did the job; 2 bad input, told in one line; 1 failed at run time; 130 or 143 interrupted (work saved).
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt3.errors import InputError, RunError
from gpt3.version import __version__


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    summary: str
    """The line that ``gpt3 --help`` shows."""
    options: str
    """Where its options dataclass is, as ``module:name``; that module imports nothing heavy."""
    run: str
    """Where its function of one argument, the options, is, as ``module:name``."""
    positional: str | None = None
    """The option that may be given without its name."""


COMMANDS = {
    "train": Command(
        "pretrain a model; with no options: the demo, a few minutes on a laptop",
        "gpt3.training.options:TrainOptions",
        "gpt3.cli.train:run",
    ),
    "generate": Command(
        "continue a text with a trained model",
        "gpt3.inference.options:GenerateOptions",
        "gpt3.cli.generate:run",
        positional="prompt",
    ),
    "finetune": Command(
        "make an assistant of a base model: conversations, then preferences (TRL)",
        "gpt3.finetuning.options:FinetuneOptions",
        "gpt3.cli.finetune:run",
    ),
    "chat": Command(
        "talk with a fine-tuned model in the terminal",
        "gpt3.cli.chat:ChatOptions",
        "gpt3.cli.chat:run",
        positional="model",
    ),
    "score": Command(
        "how well a model predicts texts: loss, perplexity, bits per byte, token by token",
        "gpt3.cli.score:ScoreOptions",
        "gpt3.cli.score:run",
        positional="files",
    ),
    "eval": Command(
        "zero-, one- and few-shot tasks, as the paper scored them",
        "gpt3.evaluation.options:EvalOptions",
        "gpt3.cli.evaluate:run",
    ),
    "serve": Command(
        "OpenAI's completions API and a Playground in the browser, for a trained model",
        "gpt3.serving.options:ServeOptions",
        "gpt3.cli.serve:run",
        positional="model",
    ),
    "export": Command(
        "write a model for llama.cpp (GGUF), or as stock GPT-2 or GPT-Neo",
        "gpt3.cli.export:ExportOptions",
        "gpt3.cli.export:run",
    ),
    "prepare": Command(
        "turn documents into token shards",
        "gpt3.corpus.options:PrepareOptions",
        "gpt3.cli.prepare:run",
    ),
    "contamination": Command(
        "which benchmark examples stand in the training text",
        "gpt3.cli.contamination:ContaminationOptions",
        "gpt3.cli.contamination:run",
    ),
    "tokenizer train": Command(
        "train a byte-level BPE of your own",
        "gpt3.cli.tokenizer:TokenizerTrainOptions",
        "gpt3.cli.tokenizer:run",
    ),
    "report": Command(
        "draw runs into one HTML file: curves, samples, settings, data",
        "gpt3.cli.report:ReportOptions",
        "gpt3.cli.report:run",
        positional="runs",
    ),
    "import": Command(
        "turn a checkpoint of GPT-2, GPT-Neo, OPT, … into a gpt3 model folder",
        "gpt3.cli.import_model:ImportOptions",
        "gpt3.cli.import_model:run",
        positional="source",
    ),
    "info": Command(
        "say what a model folder is: shape, parameters, tokenizer, files, origin",
        "gpt3.cli.info:InfoOptions",
        "gpt3.cli.info:run",
        positional="path",
    ),
    "ladder": Command(
        "the paper's models: shapes, parameters, compute, memory",
        "gpt3.cli.ladder:LadderOptions",
        "gpt3.cli.ladder:run",
    ),
    "bench train": Command(
        "time training steps, compared with nanoGPT, transformers and litGPT",
        "gpt3.bench.train:BenchTrainOptions",
        "gpt3.bench.train:run",
    ),
    "bench generate": Command(
        "time generation, compared with transformers, llama.cpp and nanoGPT",
        "gpt3.bench.generate:BenchGenerateOptions",
        "gpt3.bench.generate:run",
    ),
    "bench serve": Command(
        "time the server under concurrent clients, compared with transformers and llama.cpp",
        "gpt3.bench.serve:BenchServeOptions",
        "gpt3.bench.serve:run",
    ),
    "bench contexts": Command(
        "time per token and size of the cache as the context grows: sliding-window and dense layers",
        "gpt3.bench.contexts:BenchContextsOptions",
        "gpt3.bench.contexts:run",
    ),
    "bench formats": Command(
        "what each weight format changes: bits per byte, greedy completions, memory",
        "gpt3.bench.formats:BenchFormatsOptions",
        "gpt3.bench.formats:run",
        positional="text",
    ),
}


def usage() -> str:
    """The text of ``gpt3 --help``."""
    width = max(map(len, COMMANDS)) + 2
    lines = ["usage: gpt3 COMMAND [OPTIONS]", "", "GPT-3 as its paper describes it, runnable.", "", "commands:"]
    lines += [f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "`gpt3 COMMAND --help` lists a command's options; `gpt3 --version` prints the version."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"] and len(words) > 1:  # gpt3 help train
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"gpt3 {__version__}")
        return 0
    name = words[0]
    try:
        name, rest = _command(words)
        return _run(name, rest)
    except InputError as error:
        print(f"gpt3 {name}: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"gpt3 {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"gpt3 {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away: not an error of this program
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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


def _run(name: str, arguments: list[str]) -> int:
    from gpt3.cli.parsing import parse

    command = COMMANDS[name]
    try:
        options = parse(_load(command.options), arguments, command=name, positional=command.positional)
    except SystemExit as done:  # --help, --print_config
        return int(done.code or 0)
    result = _load(command.run)(options)
    return result if isinstance(result, int) else 0


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
