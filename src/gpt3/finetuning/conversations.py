"""What fine-tuning reads: a `Conversation` of messages, made from a row of a data set.

======================  =========================================================================
messages                ``messages`` or ``conversation(s)``: turns with role and content, from and value, or plain texts
instruction             ``instruction`` [``input`` or ``context``] and ``output`` or ``response`` (Alpaca, Dolly)
prompt                  ``prompt`` or ``question`` and ``response``, ``completion``, ``answer`` or ``output``
preference              ``chosen`` and ``rejected``: answers to a prompt in one of the columns above, or both whole
                        conversations, as turns or as text with ``Human:`` and ``Assistant:`` (hh-rlhf)
======================  =========================================================================

A column ``system`` or ``system_prompt`` becomes the system message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt3.tokenizer.chat_template import Message

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
"""What data sets call the roles, and what we call them."""
TURNS = ("messages", "conversations", "conversation")
QUESTIONS = ("prompt", "question", "query")
EXTRAS = ("input", "context")
ANSWERS = ("output", "response", "completion", "answer")
KNOWN = (
    "messages; conversations (from, value); instruction, input, output; prompt, response; prompt, completion; "
    "[prompt,] chosen, rejected"
)
SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


class RowError(Exception):
    """A row that is not a conversation; the message says why."""


@dataclass(frozen=True)
class Conversation:
    """A system message or none, then user and assistant in turn, an answer last; for DPO with a second, worse last answer."""

    messages: tuple[Message, ...]
    rejected: str | None = None
    """The last answer that people liked less; None: this is no preference."""
    group: str = ""
    """Conversations of one group are held out together, or not at all. Default: the first question."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.question)

    @property
    def question(self) -> str:
        """The first user message."""
        return next(message.content for message in self.messages if message.role == "user")

    @property
    def answers(self) -> list[str]:
        """What the assistant says; of a preference the two last answers, the better one first."""
        if self.rejected is not None:
            return [self.messages[-1].content, self.rejected]
        return [message.content for message in self.messages if message.role == "assistant"]


def as_messages(turns: Sequence[Any]) -> tuple[Message, ...]:
    """Messages from objects with role and content or from and value, or from plain texts in turn.

    Raises:
        RowError: a turn that is none of these, or whose role is unknown.
    """
    messages = []
    for number, turn in enumerate(turns):
        if isinstance(turn, str):
            turn = {"role": ("user", "assistant")[number % 2], "content": turn}
        if not isinstance(turn, Mapping):
            raise RowError(f"turn {number + 1} is a {type(turn).__name__}, not an object with role and content")
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        name = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
        if name is None:
            raise RowError(
                f"turn {number + 1} has the role {role!r}; known roles are system, user, assistant, human, gpt"
            )
        if content is not None and not isinstance(content, str):
            raise RowError(f"turn {number + 1} has a content that is not text ({type(content).__name__})")
        messages.append(Message(name, (content or "").strip()))
    return tuple(messages)


def to_conversation(row: Mapping[str, Any]) -> Conversation:
    """The conversation in a row; of a preference, the chosen one. A last question without an answer is left out.

    Raises:
        RowError: no known shape (the message says which are known and what was found), roles out of order, empty messages.
    """
    messages = list(_all_messages(row))
    while messages and messages[-1].role != "assistant":
        messages.pop()
    if not messages:
        raise RowError("no answer in it")
    if not messages[-1].content:
        raise RowError("the answer is empty")
    return Conversation((*_checked_prompt(messages[:-1]), messages[-1]))


def to_preference(row: Mapping[str, Any]) -> Conversation:
    """The preference in a row: a conversation with the chosen answer last, and the rejected one.

    Raises:
        RowError: no known shape, roles out of order, an empty answer, or twice the same one.
    """
    prompt = _prompt(row)
    chosen, rejected = (_turns(row.get(name)) for name in ("chosen", "rejected"))
    if len(chosen) > 1 or len(rejected) > 1:  # whole conversations: what they begin with is the prompt
        if chosen[:-1] != rejected[:-1]:
            raise RowError("chosen and rejected part before their last answer")
        prompt = [*_system(row), *chosen[:-1]]
    if "chosen" not in row or "rejected" not in row or not prompt:
        raise _unknown(row, "chosen and rejected answers to a prompt, or whole conversations")
    if not chosen or not rejected:
        raise RowError("chosen or rejected is empty")
    checked, better, worse = _checked_prompt(prompt), chosen[-1].content, rejected[-1].content
    if not better or not worse:
        raise RowError(f"the {'rejected' if better else 'chosen'} answer is empty")
    if better == worse:
        raise RowError("chosen and rejected are the same answer")
    return Conversation((*checked, Message("assistant", better)), worse)


def _all_messages(row: Mapping[str, Any]) -> Sequence[Message]:
    """Question and answer of a row, whatever its shape."""
    if "chosen" in row and "rejected" in row:
        return to_preference(row).messages
    for name in TURNS:
        if isinstance(row.get(name), Sequence) and not isinstance(row[name], str):
            return (*_system(row), *as_messages(row[name]))
    prompt = _prompt(row)
    for name in ANSWERS:
        if prompt and row.get(name) is not None:
            answer = row[name]
            return (*prompt, *(as_messages(answer) if isinstance(answer, list) else _turn("assistant", row, name)))
    raise _unknown(row, KNOWN)


def _checked_prompt(messages: Sequence[Message]) -> tuple[Message, ...]:
    """A system message or none, then user and assistant in turn up to a user message; empty system messages are left out."""
    kept = tuple(message for message in messages if message.role != "system" or message.content)
    turns = kept[1:] if kept and kept[0].role == "system" else kept
    for number, message in enumerate(turns):
        expected = ("user", "assistant")[number % 2]
        if message.role != expected:
            raise RowError(f"roles are out of order: turn {number + 1} is {message.role}'s, expected {expected}'s")
        if not message.content:
            raise RowError(f"turn {number + 1}, {message.role}'s, is empty")
    if not turns or turns[-1].role != "user":
        raise RowError("no question to answer")
    return kept


def _turns(value: Any) -> tuple[Message, ...]:
    """An answer, or a whole conversation, as messages."""
    if not isinstance(value, str):
        return as_messages(value) if isinstance(value, Sequence) else ()
    before, *pieces = SPEAKER.split(value)
    if not pieces or before.strip():
        return (Message("assistant", value.strip()),)
    speakers = zip(pieces[::2], pieces[1::2], strict=True)
    return tuple(Message({"Human": "user"}.get(who, "assistant"), text.strip()) for who, text in speakers)


def _prompt(row: Mapping[str, Any]) -> list[Message]:
    """System and user messages of a row of columns; none where it has no question."""
    for name in QUESTIONS:
        if row.get(name) is not None:
            question = row[name]
            turns = as_messages(question) if isinstance(question, list) else _turn("user", row, name)
            return [*_system(row), *turns]
    if row.get("instruction") is None:
        return []
    extra = next((f"\n\n{_text(row, name)}" for name in EXTRAS if row.get(name)), "")
    return [*_system(row), Message("user", (_text(row, "instruction") + extra).strip())]


def _system(row: Mapping[str, Any]) -> list[Message]:
    text = next((_text(row, name) for name in ("system", "system_prompt") if row.get(name)), "")
    return [Message("system", text)] if text else []


def _turn(role: str, row: Mapping[str, Any], name: str) -> tuple[Message, ...]:
    return (Message(role, _text(row, name)),)


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise RowError(f"column {name!r} is not text but a {type(row[name]).__name__}")
    return str(row[name]).strip()


def _unknown(row: Mapping[str, Any], known: str) -> RowError:
    """The error for columns in no known shape."""
    found = ", ".join(map(str, list(row)[:12])) or "none"
    return RowError(f"its columns are in no known shape (known: {known}; found: {found})")
