"""Conversations as training samples: ids and labels of at most so many tokens, and how many had to be cut."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpt3.errors import InputError
from gpt3.finetuning.conversations import Conversation, Message, Preference
from gpt3.finetuning.template import ChatTemplate, Tokens

IGNORED = -100
"""The label of a token that is read and not trained."""
GREEN, PLAIN = "\x1b[32m", "\x1b[0m"


@dataclass
class Cuts:
    """What did not fit the context."""

    samples: int = 0
    """Samples made."""
    trained_tokens: int = 0
    tokens: int = 0
    turns: int = 0
    """Conversations that lost their last exchanges."""
    answers: int = 0
    """Conversations whose only remaining answer lost its end."""
    dropped: int = 0
    """Conversations whose first question alone fills the context; pairs that are too long."""

    def line(self, context: int) -> str:
        """For people."""
        parts = [f"{self.samples:,} samples, {self.tokens:,} tokens, {self.trained_tokens:,} of them trained"]
        if self.turns:
            parts.append(f"{self.turns:,} lost their last turns")
        if self.answers:
            parts.append(f"{self.answers:,} lost the end of their answer")
        if self.dropped:
            parts.append(f"{self.dropped:,} dropped")
        return "; ".join(parts) + (f" (context {context})" if len(parts) > 1 else "")


@dataclass(frozen=True)
class Rows:
    """Samples as columns, as `datasets.Dataset.from_dict` takes them."""

    columns: dict[str, list[list[int]]]
    cuts: Cuts = field(default_factory=Cuts)

    def add(self, other: Rows) -> None:
        """Append another's samples."""
        for name, column in other.columns.items():
            self.columns[name] += column
        self.cuts.samples += other.cuts.samples
        self.cuts.tokens += other.cuts.tokens
        self.cuts.trained_tokens += other.cuts.trained_tokens


def conversation_rows(
    conversations: Iterable[Conversation], template: ChatTemplate, context: int, train_on: str = "assistant"
) -> Rows:
    """Columns ``input_ids`` and ``labels`` (IGNORED where a token is not trained).

    Raises:
        InputError: not one conversation fits `context`.
    """
    ids, labels, cuts = [], [], Cuts()
    for conversation in conversations:
        tokens = fitted(template, conversation.messages, context, cuts)
        if tokens is None:
            continue
        said = tokens.trained if train_on == "assistant" else [True] * len(tokens.ids)
        ids.append(tokens.ids)
        labels.append([token if trained else IGNORED for token, trained in zip(tokens.ids, said, strict=True)])
        count(cuts, tokens.ids, sum(said))
    if not ids:
        raise InputError(
            f"all {cuts.dropped:,} conversations are longer than the context of {context}; shorten them, or give a longer "
            "--context or a model of more positions"
        )
    return Rows({"input_ids": ids, "labels": labels}, cuts)


def text_rows(texts: Iterable[str], template: ChatTemplate, context: int, tokens: int) -> Rows:
    """Rows of plain text, documents one after another with the end-of-text token between, as a base model read them; every
    token is trained. As many rows of `context` tokens as come closest to `tokens`; of fewer texts, what they give.
    """
    ids: list[list[int]] = []
    row: list[int] = []
    wanted = round(tokens / context)
    for text in texts:
        if len(ids) >= wanted:
            break
        row += [*template.plain(text), template.tokenizer.eos_token_id]
        while len(row) >= context and len(ids) < wanted:
            ids.append(row[:context])
            row = row[context:]
    total = len(ids) * context
    return Rows({"input_ids": ids, "labels": [list(one) for one in ids]}, Cuts(len(ids), total, total))


def preference_rows(preferences: Iterable[Preference], template: ChatTemplate, context: int) -> Rows:
    """Columns ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``. A pair with an answer that does not fit is dropped, not cut:
    a cut answer is another answer.

    Raises:
        InputError: not one pair fits `context`.
    """
    columns: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    cuts = Cuts()
    for pair in preferences:
        prompt = template.prompt(pair.prompt)
        wholes = [
            template.encode((*pair.prompt, Message("assistant", text))).ids for text in (pair.chosen, pair.rejected)
        ]
        if max(map(len, wholes)) > context:
            cuts.dropped += 1
            continue
        answers = [whole[len(prompt) :] for whole in wholes]
        for name, value in zip(columns, (prompt, *answers), strict=True):
            columns[name].append(value)
        count(cuts, [*prompt, *answers[0], *answers[1]], sum(map(len, answers)))
    if not columns["prompt_ids"]:
        raise InputError(
            f"all {cuts.dropped:,} pairs are longer than the context of {context}; shorten them, or give a longer --context "
            "or a model of more positions"
        )
    return Rows(columns, cuts)


def count(cuts: Cuts, ids: list[int], trained: int) -> None:
    """Count one sample."""
    cuts.samples += 1
    cuts.tokens += len(ids)
    cuts.trained_tokens += trained


def fitted(template: ChatTemplate, messages: tuple[Message, ...], context: int, cuts: Cuts) -> Tokens | None:
    """At most `context` tokens of a conversation: all of it, or its first exchanges, or the beginning of its first answer.

    So an answer is trained whole or from its beginning, never in its middle. None: not one token of an answer would remain.
    """
    tokens = template.encode(messages)
    if len(tokens.ids) <= context:
        return tokens
    answers = [number for number, message in enumerate(messages, 1) if message.role == "assistant"]
    for stop in reversed(answers[:-1]):
        shorter = template.encode(messages[:stop])
        if len(shorter.ids) <= context:
            cuts.turns += 1
            return shorter
    cut = Tokens(
        tokens.ids[:context], tokens.trained[:context]
    )  # ends in the first exchange, else that would have fitted
    if not any(cut.trained):
        cuts.dropped += 1
        return None
    cuts.answers += 1
    return cut


def shown(template: ChatTemplate, ids: list[int], labels: list[int], colour: bool | None = None) -> str:
    """A sample as text, what is trained in green; where there is no colour, between ⟦ and ⟧."""
    if colour is None:
        colour = (sys.stdout.isatty() or "FORCE_COLOR" in os.environ) and "NO_COLOR" not in os.environ
    opening, closing = (GREEN, PLAIN) if colour else ("⟦", "⟧")
    pieces: list[str] = []
    start = 0
    while start < len(ids):
        trained = labels[start] != IGNORED
        stop = start
        while stop < len(ids) and (labels[stop] != IGNORED) == trained:
            stop += 1
        text = str(template.tokenizer.decode(ids[start:stop], skip_special_tokens=False))
        pieces.append(f"{opening}{text}{closing}" if trained else text)
        start = stop
    return "".join(pieces)
