"""What fine-tuning reads: a `Conversation` of messages, or a `Preference` between two answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant")
ROLE_NAMES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
"""What data sets call the roles, and what we call them."""


class RowError(Exception):
    """A row that is no conversation; the message says why."""


@dataclass(frozen=True)
class Message:
    """One turn: `role` is one of ROLES, `content` has no white space at its ends."""

    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        """As chat templates take it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Conversation:
    """A system message or none, then turns of user and assistant in alternation, an answer last."""

    messages: tuple[Message, ...]
    source: str = ""
    """The name of the data it came from."""
    group: str = ""
    """Conversations of one group are held out together, or not at all; by default the first question."""

    @property
    def question(self) -> str:
        """The first user message."""
        return next(message.content for message in self.messages if message.role == "user")

    @property
    def answers(self) -> list[str]:
        """What the assistant says."""
        return [message.content for message in self.messages if message.role == "assistant"]


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, the first of which people liked better."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: str = ""
    group: str = ""

    @property
    def question(self) -> str:
        """The first user message."""
        return next(message.content for message in self.prompt if message.role == "user")

    @property
    def answers(self) -> list[str]:
        """Both, the better one first."""
        return [self.chosen, self.rejected]


def as_messages(turns: Sequence[Any]) -> tuple[Message, ...]:
    """Messages from what data sets hold: objects with role and content or from and value, or texts in alternation.

    Raises:
        RowError: a turn that is none of these, or whose role is unknown.
    """
    messages = []
    for number, turn in enumerate(turns):
        if isinstance(turn, str):
            messages.append(Message(("user", "assistant")[number % 2], turn.strip()))
            continue
        if not isinstance(turn, Mapping):
            raise RowError(f"turn {number + 1} is a {type(turn).__name__}, not an object with role and content")
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        name = ROLE_NAMES.get(role.strip().lower()) if isinstance(role, str) else None
        if name is None:
            raise RowError(f"turn {number + 1} has the role {role!r}; known are {', '.join(ROLES)}, human, gpt")
        if content is not None and not isinstance(content, str):
            raise RowError(f"turn {number + 1} has a content that is no text ({type(content).__name__})")
        messages.append(Message(name, (content or "").strip()))
    return tuple(messages)


def checked_prompt(messages: Sequence[Message]) -> tuple[Message, ...]:
    """A system message or none, then user and assistant in alternation up to a user message.

    Raises:
        RowError: roles out of order, or an empty message.
    """
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


def conversation(messages: Sequence[Message], source: str = "", group: str = "") -> Conversation:
    """A conversation whose roles are in order and whose messages are not empty. A last question without answer is left out.

    Raises:
        RowError: why it is none.
    """
    messages = list(messages)
    while messages and messages[-1].role != "assistant":
        messages.pop()
    if not messages:
        raise RowError("no answer in it")
    if not messages[-1].content:
        raise RowError("the answer is empty")
    made = Conversation((*checked_prompt(messages[:-1]), messages[-1]), source, group)
    return made if group else Conversation(made.messages, source, made.question)


def preference(messages: Sequence[Message], chosen: str, rejected: str, source: str = "") -> Preference:
    """A preference whose prompt is in order and whose answers are two.

    Raises:
        RowError: why it is none.
    """
    prompt = checked_prompt(messages)
    chosen, rejected = chosen.strip(), rejected.strip()
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer:
            raise RowError(f"the {name} answer is empty")
    if chosen == rejected:
        raise RowError("chosen and rejected are the same answer")
    made = Preference(prompt, chosen, rejected, source)
    return Preference(prompt, chosen, rejected, source, made.question)
