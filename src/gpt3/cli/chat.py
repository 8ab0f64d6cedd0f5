"""`gpt3 chat`: a conversation in the terminal, with line editing and history; in a pipe, one message a line."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from gpt3.errors import InputError
from gpt3.finetuning.chat import Chat, has_template
from gpt3.finetuning.options import ChatOptions
from gpt3.inference.options import SamplingOptions
from gpt3.inference.standard_streams import speak_utf8, write
from gpt3.progress import say

HELP = """/reset            forget the conversation, keep the system message
/system TEXT      begin anew with this system message (without TEXT: none)
/regenerate       another answer to the last message
/set NAME VALUE   a sampling option, e.g. /set temperature 0.7 (alone: show them)
/save FILE        write the conversation as JSON
/load FILE        go on with a saved conversation
/help             this list
/quit             end (as Ctrl-D); Ctrl-C ends an answer, or drops the line"""


def run(options: ChatOptions) -> int:
    """Talk until the input ends. Answers go to standard output, all else to standard error.

    Raises:
        InputError: see `gpt3.load`; in a pipe, also a command that cannot be followed.
    """
    speak_utf8(sys.stdout)
    from gpt3.inference.language_model import load
    from gpt3.model_folder.locate import locate

    place = locate(options.model)
    model = load(place, device=options.device, dtype=options.dtype, quantize=options.quantize)
    names = {field.name for field in dataclasses.fields(SamplingOptions)}
    sampling = SamplingOptions(**{name: getattr(options, name) for name in names} | {"num_samples": 1})
    chat = Chat(model, sampling, system=options.system, few_shot=True if options.few_shot else None)
    if options.load is not None:
        chat.load(options.load)
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if options.model is None or terminal:
        say(f"model: {place}; /help lists the commands" if terminal else f"model: {place}")
    if not has_template(model):
        say(
            "this is a base model, not tuned to converse (gpt3 finetune does that); it is asked as GPT-3 was, after a few "
            "questions and answers"
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
    """Messages and commands as they are typed or piped in; blank lines are passed over."""
    if not terminal:
        for number, data in enumerate(sys.stdin.buffer, 1):
            try:
                text = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise InputError(f"line {number} is not UTF-8 at byte {error.start}; convert it to UTF-8") from None
            if text:
                yield text
        return
    with line_editing():
        while True:
            try:
                text = input("> ").strip()
            except EOFError:
                write("\n")
                return
            except KeyboardInterrupt:  # perhaps meant for an answer that had just ended: the conversation is not lost
                write("\n")
                say("Ctrl-D or /quit ends the conversation")
                continue
            if text:
                yield text


@contextlib.contextmanager
def line_editing() -> Iterator[None]:
    """Arrow keys and a history that lasts, where Python has readline (not on Windows)."""
    try:
        import readline
    except ImportError:
        yield
        return
    from gpt3.corpus.cache import cache_folder

    path = cache_folder() / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)


def obey(chat: Chat, line: str) -> Iterator[str] | None:
    """Follow a command, or say a message; returns the answer to come, if there is one.

    Raises:
        InputError: a command that is unknown or cannot be followed.
        SystemExit: /quit.
    """
    if not line.startswith("/"):
        return chat.reply(line)
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    if command in ("/save", "/load") and not rest:
        raise InputError(f"{command} needs a file")
    if command == "/regenerate":
        return chat.regenerate()
    if command == "/reset":
        chat.reset()
        say("a new conversation")
    elif command == "/system":
        chat.set_system(rest)
        say("a new conversation" + (" with this system message" if rest else " without a system message"))
    elif command == "/set":
        name, _, value = rest.partition(" ")
        if not name:
            values = dataclasses.asdict(chat.options)
            say(", ".join(f"{key} {values[key]}" for key in values if key not in ("num_samples", "logprobs")))
        else:
            say(f"{name} is {chat.set_option(name, value.strip())}")
    elif command == "/save":
        chat.save(rest)
        say(f"saved in {rest}")
    elif command == "/load":
        chat.load(rest)
        say(f"{len(chat.messages)} messages")
    elif command == "/help":
        say(HELP)
    elif command in ("/quit", "/exit"):
        raise SystemExit(0)
    else:
        raise InputError(f"unknown command {command}; /help lists them")
    return None


def speak(chat: Chat, pieces: Iterator[str], terminal: bool) -> None:
    """Write an answer as it comes; in a terminal Ctrl-C ends it and the conversation goes on."""
    if chat.dropped:
        say(f"the context is full: the oldest {chat.dropped} messages are not seen any more")
    begun = False
    noted: contextlib.AbstractContextManager[list[int]]
    noted = first_interrupt_noted() if terminal else contextlib.nullcontext([])
    try:
        with noted as interrupts:
            for piece in pieces:
                piece = piece if begun else piece.lstrip()
                if piece:
                    write(piece)
                    begun = True
                if interrupts:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]  # a generator: the answer so far is kept
        if not terminal:
            raise
    write("\n")
    last = chat.last
    if terminal and last is not None and last.finish_reason == "length":
        say(f"cut off after {last.token_count} tokens; /set max_new_tokens allows more")


@contextlib.contextmanager
def first_interrupt_noted() -> Iterator[list[int]]:
    """Of Ctrl-C, the first is put into the list that is given, the second raises KeyboardInterrupt as ever.

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
