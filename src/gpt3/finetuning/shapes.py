"""The shapes rows come in, and how each becomes a conversation or a preference.

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
from typing import Any

from gpt3.finetuning.conversations import (
    Conversation,
    Message,
    Preference,
    RowError,
    as_messages,
    conversation,
    preference,
)

TURNS = ("messages", "conversations", "conversation")
QUESTIONS = ("prompt", "question", "query")
EXTRAS = ("input", "context")
ANSWERS = ("output", "response", "completion", "answer")
KNOWN = (
    "messages; conversations (from, value); instruction, input, output; prompt, response; prompt, completion; "
    "[prompt,] chosen, rejected"
)
SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def to_conversation(row: Mapping[str, Any], source: str = "") -> Conversation:
    """The conversation a row holds; of a preference, the chosen one.

    Raises:
        RowError: no known shape (the message says which are known and what was seen), or no conversation.
    """
    if "chosen" in row and "rejected" in row:
        found = to_preference(row, source)
        return conversation((*found.prompt, Message("assistant", found.chosen)), source)
    for name in TURNS:
        if isinstance(row.get(name), Sequence) and not isinstance(row[name], str):
            return conversation((*_system(row), *as_messages(row[name])), source)
    prompt = _prompt(row)
    for name in ANSWERS:
        if prompt and row.get(name) is not None:
            answer = row[name]
            turns = as_messages(answer) if isinstance(answer, list) else (Message("assistant", _text(row, name)),)
            return conversation((*prompt, *turns), source)
    raise unknown(row)


def to_preference(row: Mapping[str, Any], source: str = "") -> Preference:
    """The preference a row holds.

    Raises:
        RowError: no known shape, or no preference.
    """
    if "chosen" not in row or "rejected" not in row:
        raise unknown(row, preferences=True)
    prompt = _prompt(row)
    chosen, rejected = (_turns(row[name]) for name in ("chosen", "rejected"))
    if len(chosen) > 1 or len(rejected) > 1:  # whole conversations: what they begin with is the prompt
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        if shared < len(chosen) - 1 or shared < len(rejected) - 1:
            raise RowError("chosen and rejected part before their last answer")
        prompt = [*_system(row), *chosen[:shared]]
    if not prompt:
        raise unknown(row, preferences=True)
    if not chosen or not rejected:
        raise RowError("chosen or rejected is empty")
    return preference(prompt, chosen[-1].content, rejected[-1].content, source)


def unknown(row: Mapping[str, Any], preferences: bool = False) -> RowError:
    """The complaint about columns that make no shape."""
    seen = ", ".join(map(str, list(row)[:12])) or "none"
    need = "chosen and rejected answers to a prompt, or whole conversations" if preferences else KNOWN
    return RowError(f"its columns are in no known shape (known: {need}; found: {seen})")


def _turns(value: Any) -> list[Message]:
    """An answer, or a whole conversation, as messages."""
    if isinstance(value, str):
        pieces = SPEAKER.split(value)
        if len(pieces) > 1 and not pieces[0].strip():
            speakers = zip(pieces[1::2], pieces[2::2], strict=True)
            return [Message({"Human": "user"}.get(who, "assistant"), text.strip()) for who, text in speakers]
        return [Message("assistant", value.strip())]
    return list(as_messages(value)) if isinstance(value, Sequence) else []


def _prompt(row: Mapping[str, Any]) -> list[Message]:
    """System and user messages of a row of columns; none where it has no question."""
    for name in QUESTIONS:
        if isinstance(row.get(name), list):
            return [*_system(row), *as_messages(row[name])]
        if row.get(name) is not None:
            return [*_system(row), Message("user", _text(row, name))]
    if row.get("instruction") is None:
        return []
    extra = next((_text(row, name) for name in EXTRAS if row.get(name)), "")
    text = _text(row, "instruction") + (f"\n\n{extra}" if extra else "")
    return [*_system(row), Message("user", text.strip())]


def _system(row: Mapping[str, Any]) -> list[Message]:
    text = next((_text(row, name) for name in ("system", "system_prompt") if row.get(name)), "")
    return [Message("system", text)] if text else []


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise RowError(f"column {name!r} is no text but a {type(row[name]).__name__}")
    return str(row[name]).strip()
