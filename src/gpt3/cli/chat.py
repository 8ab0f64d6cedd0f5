"""`gpt3 chat`: a conversation in the terminal, with line editing and history; in a pipe, one message per line."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from gpt3.cli.generate import with_constraint
from gpt3.cli.numba_alone import import_numba
from gpt3.corpus.records import decoded
from gpt3.errors import InputError
from gpt3.inference.options import SamplingOptions
from gpt3.model_folder.locate import locate
from gpt3.options import DType, Quantize, option
from gpt3.progress import say, write
from gpt3.tokenizer.chat_template import has_template

if TYPE_CHECKING:
    from gpt3.finetuning.chat import Chat

HELP = """/reset            forget the conversation, keep the system message
/system TEXT      start a new conversation with this system message (without TEXT: none)
/regenerate       another answer to the last message
/set NAME VALUE   a sampling option, e.g. /set temperature 0.7 (alone: show them)
/probabilities    show or hide how likely each token of an answer was
/save FILE        write the conversation as JSON
/load FILE        continue a saved conversation
/help             this list
/quit             end (as Ctrl-D); Ctrl-C ends an answer, or drops the line"""


@dataclass(frozen=True)
class ChatOptions(SamplingOptions):
    """Talk with a fine-tuned model in the terminal; in a pipe, one message per line."""

    temperature: float = option(0.7, least=0, group="Sampling", common=True)
    """Divides the logits: below 1 plainer text, above 1 more varied; 0 is greedy, else from 1e-6."""
    top_p: float = option(0.9, above=0, most=1, common=True)
    """Sample among the fewest tokens with this total probability; 1 keeps all."""
    model: str | None = option(None, group="Model", common=True)
    """A model or run folder, a run's name in ./runs, a hub id, or starter. Default: the newest run in ./runs, else starter."""
    system: str | None = option(None, group="Conversation", common=True)
    """The system message that starts the conversation."""
    load: str | None = option(None, common=True)
    """A conversation to continue, saved by /save."""
    probabilities: bool = option(False)
    """After each answer, show how likely its tokens were; /probabilities turns it on and off."""
    few_shot: bool = option(False)
    """Ask after few-shot examples (paper App. G). Default for a model without a chat template."""
    device: str = option("auto", group="Hardware", common=True)
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: DType = option("auto")
    """Number format of the weights; auto: on CUDA bf16, or fp16 where it lacks that; else fp32. A CPU computes in fp32."""
    quantize: Quantize = option("none")
    """none; int8 or int4: 8- or 4-bit weights, made at load; int4 for CPUs."""
    threads: str = option("auto")
    """CPU threads: auto adapts to what else the machine does; a number is fixed."""


def run(options: ChatOptions) -> int:
    """Talk until the input ends. Answers go to standard output, everything else to standard error.

    Raises:
        InputError: see `gpt3.load`; in a pipe, also a command that fails.
    """
    import_numba()
    from gpt3.finetuning.chat import Chat
    from gpt3.inference.language_model import load

    place = locate(options.model, or_starter=True)
    model = load(place, device=options.device, dtype=options.dtype, quantize=options.quantize, threads=options.threads)
    shown = 0 if options.probabilities else options.logprobs
    sampling = with_constraint(dataclasses.replace(options, num_samples=1, logprobs=shown))
    chat = Chat(model, sampling, system=options.system, few_shot=True if options.few_shot else None)
    if options.load is not None:
        chat.load(options.load)
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if options.model is None or terminal:
        say(f"model: {place}" + ("; /help lists the commands" if terminal else ""))
    if not has_template(model.tokenizer):
        say(
            "This is a base model, not tuned to converse (gpt3 finetune does that). It is asked after few-shot examples."
        )
    for line in lines(terminal):
        try:
            pieces = obey(chat, line)
        except InputError as error:
            if not terminal:
                raise
            say(str(error))
            continue
        if pieces is not None:
            speak(chat, pieces, terminal)
    return 0


def lines(terminal: bool) -> Iterator[str]:
    """Messages and commands as they are typed or piped in; blank lines are skipped."""
    if terminal:
        return filter(None, typed())
    return filter(None, (decoded(data, f"line {number}").strip() for number, data in enumerate(sys.stdin.buffer, 1)))


def typed() -> Iterator[str]:
    """Lines from the terminal."""
    with line_editing():
        while True:
            try:
                yield input("> ").strip()
            except EOFError:
                write("\n")
                return
            except KeyboardInterrupt:  # perhaps meant for an answer that had just ended: the conversation is not lost
                write("\n")
                say("Ctrl-D or /quit ends the conversation.")


@contextlib.contextmanager
def line_editing() -> Iterator[None]:
    """Arrow keys and a history that lasts, where Python has readline (not on Windows)."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = history_file()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)


def history_file() -> Path:
    """Where the lines typed are kept: with the user's state, as the XDG base directories have it, not in a cache."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111  # never an error
    return Path(state) / "gpt3" / "chat_history"


def obey(chat: Chat, line: str) -> Generator[str] | None:
    """Follow a command, or send a message; returns the answer to come, if there is one.

    Raises:
        InputError: a command that is unknown or fails.
        SystemExit: /quit.
    """
    if not line.startswith("/"):
        return chat.reply(line)
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    if command in ("/save", "/load") and not rest:
        raise InputError(f"{command} needs a file")
    match command:
        case "/regenerate":
            return chat.regenerate()
        case "/reset":
            chat.reset()
            say("New conversation.")
        case "/system":
            chat.set_system(rest)
            say(f"New conversation {'with this' if rest else 'without a'} system message.")
        case "/set" if rest:
            name, _, value = rest.partition(" ")
            say(f"{name} is {chat.set_option(name, value.strip())}")
        case "/set":
            say(", ".join(f"{name} {getattr(chat.options, name)}" for name in chat.SETTABLE))
        case "/probabilities":
            shown = chat.options.logprobs is None
            chat.options = dataclasses.replace(chat.options, logprobs=0 if shown else None)
            say(f"Probabilities are {'shown' if shown else 'not shown'}.")
        case "/save":
            chat.save(rest)
            say(f"Saved to {rest}.")
        case "/load":
            chat.load(rest)
            say(f"{len(chat.messages)} messages")
        case "/help":
            say(HELP)
        case "/quit" | "/exit":
            raise SystemExit(0)
        case _:
            raise InputError(f"unknown command {command}. /help lists them.")
    return None


def speak(chat: Chat, pieces: Generator[str], terminal: bool) -> None:
    """Print an answer as it comes; in a terminal Ctrl-C ends it and the conversation continues."""
    if chat.dropped:
        say(f"The context is full: the model no longer sees the oldest {chat.dropped} messages.")
    begun = False
    try:
        with first_interrupt_noted() as interrupts:
            for piece in pieces:
                piece = piece if begun else piece.lstrip()
                begun = begun or bool(piece)
                write(piece)
                if interrupts:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        pieces.close()  # the answer so far is kept
        if not terminal:
            raise
    write("\n")
    if chat.last is not None and chat.last.logprobs:
        from gpt3.inference.score_view import tell

        tell(chat.last.logprobs)
    if terminal and chat.last is not None and chat.last.finish_reason == "length":
        say(f"Cut off after {chat.last.token_count} tokens; /set max_new_tokens allows more.")


@contextlib.contextmanager
def first_interrupt_noted() -> Iterator[list[int]]:
    """Of Ctrl-C, the first is put into the list that is given; the second raises KeyboardInterrupt as ever.

    So an answer ends between two tokens; an exception would strike anywhere, and may be lost in some library's finalizer.
    """
    interrupts: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        if interrupts:
            signal.default_int_handler(number, frame)
        interrupts.append(number)

    before = signal.signal(signal.SIGINT, take)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
