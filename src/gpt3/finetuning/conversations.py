"""What fine-tuning reads: a `Conversation` of messages, made from a row of a data set.

======================  =========================================================================
messages                ``messages`` or ``conversation(s)``: turns with role and content, from and value, or plain texts
instruction             ``instruction`` [``input`` or ``context``] and ``output`` or ``response`` (Alpaca, Dolly)
prompt                  ``prompt`` or ``question`` and ``response``, ``completion``, ``answer`` or ``output``
preference              ``chosen`` and ``rejected``: answers to a prompt in one of the columns above, or both whole
                        conversations, as turns or as text with ``Human:`` and ``Assistant:`` (hh-rlhf)
======================  =========================================================================

A column ``system`` or ``system_prompt`` becomes the system message. `FILTERS` says which conversations are kept: small named
tests, each counted in the report.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt3.corpus.formats import fault_of
from gpt3.curation.near_duplicates import NearDuplicateOptions, NearDuplicates
from gpt3.tokenizer.chat_template import Message

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
"""What data sets call the roles, and what we call them."""
TOOLS, CALLS = ("tool", "function", "ipython"), ("tool_calls", "function_call")
"""Roles and columns of conversations with tools."""
TURNS = ("messages", "conversations", "conversation")
QUESTIONS = ("prompt", "question", "query")
EXTRAS = ("input", "context")
ANSWERS = ("output", "response", "completion", "answer")
KNOWN = (
    "prompt or question, and response, completion, answer or output; messages; conversations (from, value); "
    "instruction, input, output; [prompt,] chosen, rejected"
)
SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


class RowError(Exception):
    """A row that is not a conversation; the message says why."""


@dataclass(frozen=True)
class Conversation:
    """A system message or none, then user and assistant in turn, an answer last; for DPO with a second, worse last answer.

    Raises:
        RowError: on making one with half a character in it (a lone surrogate).
    """

    messages: tuple[Message, ...]
    rejected: str | None = None
    """The last answer that people liked less; None: this is no preference."""
    group: str = ""
    """Conversations of one group are held out together, or not at all. Default: the first question."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.question)
        for text in (*(message.content for message in self.messages), self.rejected or ""):
            if fault := fault_of(text):
                raise RowError(fault)

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

    @property
    def texts(self) -> list[str]:
        """All that is said in it, a rejected answer last; without the system message."""
        said = [message.content for message in self.messages if message.role != "system"]
        return said if self.rejected is None else [*said, self.rejected]

    @property
    def system(self) -> str:
        """The system message, "" if there is none."""
        return self.messages[0].content if self.messages[0].role == "system" else ""


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
        role = turn.get("role") or turn.get("from")
        content = _said(turn.get("value") if turn.get("content") is None else turn["content"])
        if role in TOOLS or any(turn.get(name) for name in CALLS):
            what = f"a tool message (role {role})" if role in TOOLS else "a tool call"
            raise RowError(f"turn {number + 1} is {what}, which the chat templates here do not support")
        name = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
        if name is None:
            raise RowError(
                f"turn {number + 1} has the role {role!r}; known roles are system, user, assistant, human, gpt"
            )
        if content is not None and not isinstance(content, str):
            raise RowError(f"turn {number + 1} has a content that is not text ({type(content).__name__})")
        messages.append(Message(name, (content or "").strip()))
    return tuple(messages)


def _said(content: Any) -> Any:
    """A content of text parts, ``[{"type": "text", "text": "…"}]``, as one text; another as it is."""
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    return content


def to_conversation(row: Mapping[str, Any]) -> Conversation:
    """The conversation in a row; of a preference, the chosen one. A last question without an answer is left out.

    Raises:
        RowError: no known shape (the message says which are known and what was found), roles out of order, empty messages.
    """
    messages = list(_all_messages(_filled(row)))
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
    row = _filled(row)
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


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that hold something: tables of several sources have all columns of each.

    A name's capitals do not count ("Question", as spreadsheets have it), unless another column is the same but for them.
    """
    held = {name: value for name, value in row.items() if value is not None}
    return {name.lower(): value for name, value in held.items()} | held


def _all_messages(row: Mapping[str, Any]) -> Sequence[Message]:
    """Question and answer of a row, whatever its shape."""
    if "chosen" in row and "rejected" in row:
        return to_preference(row).messages
    for name in TURNS:
        if isinstance(row.get(name), Sequence) and not isinstance(row[name], str):
            return (*_system(row), *as_messages(row[name]))
    prompt = _prompt(row)
    for name in ANSWERS:
        if prompt and name in row:
            return [*prompt, *_column(row, name, "assistant")]
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
        if name in row:
            return [*_system(row), *_column(row, name, "user")]
    if "instruction" not in row:
        return []
    extra = next((f"\n\n{_text(row, name)}" for name in EXTRAS if row.get(name)), "")
    return [*_system(row), Message("user", (_text(row, "instruction") + extra).strip())]


def _system(row: Mapping[str, Any]) -> list[Message]:
    text = next((_text(row, name) for name in ("system", "system_prompt") if row.get(name)), "")
    return [Message("system", text)] if text else []


def _column(row: Mapping[str, Any], name: str, role: str) -> Sequence[Message]:
    """The messages in a column: its turns, or its text, which `role` says."""
    return as_messages(row[name]) if isinstance(row[name], list) else [Message(role, _text(row, name))]


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise RowError(f"column {name!r} is not text but a {type(row[name]).__name__}")
    return str(row[name]).strip()


def _unknown(row: Mapping[str, Any], known: str) -> RowError:
    """The error for columns in no known shape."""
    found = ", ".join(map(str, list(row)[:12])) or "none"
    return RowError(f"its columns are in no known shape (known: {known}; found: {found})")


Filter = Callable[[Conversation], bool]

WORD = re.compile(r"\w+")
FUNCTION_WORDS = frozenset(  # the commonest of English prose
    WORD.findall(
        "the of and to in a is that for it as was with be by on not he i this are or his from at which but have an had they you "
        "were their one all we can her has there been if more when will would who so no what about your"
    )
)
ENGLISH_SHARE = 0.12
"""Function words among a text's words, below which a text of 20 words or more is not taken for English."""
LONGEST_WORDS = 2000
"""Words of an answer above which it is too long."""
REFUSAL = re.compile(
    r"\b(as an ai( language)? model|as a language model|i'?m (just )?an ai|i(’|')?m sorry, but (i|as)|i (cannot|can't|can’t|am "
    r"unable to|am not able to) (assist|help|fulfil|fulfill|comply|provide|answer|browse|access))",
    re.IGNORECASE,
)


def english(item: Conversation) -> bool:
    """Whether what is said is English, by script and function words; short texts by their script alone."""
    text = " ".join(item.texts).lower()
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return True
    if sum(character.isascii() for character in letters) < 0.9 * len(letters):
        return False
    words = WORD.findall(text)
    return len(words) < 20 or sum(word in FUNCTION_WORDS for word in words) >= ENGLISH_SHARE * len(words)


def length(item: Conversation) -> bool:
    """Whether every answer has a word, and at most LONGEST_WORDS."""
    return all(0 < len(answer.split()) <= LONGEST_WORDS for answer in item.answers)


def no_refusal(item: Conversation) -> bool:
    """Whether no answer begins by declining (its first 200 characters are looked at); of two, whether the chosen one does not."""
    answers = item.answers if item.rejected is None else item.answers[:1]
    return not any(REFUSAL.search(answer[:200]) for answer in answers)


class FirstSeen:
    """Whether a conversation has not come before, letter by letter but for case and white space."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, item: Conversation) -> bool:
        """Remember it and say whether it is new."""
        texts = (" ".join(text.lower().split()) for text in (item.system, *item.texts))
        key = hashlib.sha256("\n".join(texts).encode("utf-8", "replace")).digest()
        new = key not in self._seen
        self._seen.add(key)
        return new


class FirstOfItsKind:
    """Whether no conversation before it was nearly the same, by the rule of `gpt3.curation.near_duplicates`.

    Only conversations with the same system message are compared, by the rest of their text: a long one is in all of a data set.
    """

    def __init__(self) -> None:
        self._witness = NearDuplicates(NearDuplicateOptions())

    def __call__(self, item: Conversation) -> bool:
        """Remember it and say whether it is new."""
        system = hashlib.blake2b(item.system.encode("utf-8", "replace"), digest_size=8).digest()
        return self._witness("\n".join(item.texts), int.from_bytes(system, "little")) is None


FILTERS: dict[str, Callable[[], Filter]] = {
    "duplicates": FirstSeen,
    "near-duplicates": FirstOfItsKind,
    "english": lambda: english,
    "length": lambda: length,
    "refusals": lambda: no_refusal,
}
"""Names that --filter takes; each makes a test that says whether a conversation stays."""
