"""Conversations as training samples: token ids and labels that fit the context, and a count of what had to be cut."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpt3.errors import InputError
from gpt3.finetuning.conversations import Conversation
from gpt3.finetuning.options import FinetuneOptions
from gpt3.tokenizer.chat_template import ChatTemplate, Message

IGNORED = -100
"""The label of a token that is read and not trained."""
GREEN, PLAIN = "\x1b[32m", "\x1b[0m"


@dataclass
class Samples:
    """Samples as columns, as `datasets.Dataset.from_dict` takes them, and a count of what did not fit the context."""

    columns: dict[str, list[list[int]]]
    """Each value is a list of token ids or labels."""
    samples: int = 0
    trained_tokens: int = 0
    tokens: int = 0
    turns: int = 0
    """Conversations that lost their last exchanges."""
    answers: int = 0
    """Conversations whose only remaining answer lost its end."""
    dropped: int = 0
    """Conversations whose first question alone fills the context; pairs that are too long."""

    def add(self, *values: list[int], tokens: int, trained: int) -> None:
        """Append one sample, a value for each column."""
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
        self.samples += 1
        self.tokens += tokens
        self.trained_tokens += trained

    def counts(self) -> dict[str, int]:
        """All numbers."""
        return {name: value for name, value in vars(self).items() if name != "columns"}

    def line(self, context: int) -> str:
        """A summary to print."""
        text = f"{self.samples:,} samples, {self.tokens:,} tokens, {self.trained_tokens:,} of them trained"
        kinds = {
            "lost their last turns": self.turns,
            "lost the end of their answer": self.answers,
            "dropped": self.dropped,
        }
        lost = [f"; {count:,} {what}" for what, count in kinds.items() if count]
        return text + "".join(lost) + (f" (context {context})" if lost else "")


def samples_for(options: FinetuneOptions, items: list[Conversation], template: ChatTemplate, context: int) -> Samples:
    """Conversations, or for DPO preferences, as the options' method trains them."""
    if options.method == "dpo":
        return preference_samples(items, template, context)
    return conversation_samples(items, template, context, options.train_on)


def conversation_samples(
    conversations: Iterable[Conversation], template: ChatTemplate, context: int, train_on: str = "assistant"
) -> Samples:
    """Columns ``input_ids`` and ``labels`` (`IGNORED` where a token is not trained), each sample at most `context` tokens.

    Raises:
        InputError: not one conversation fits `context`.
    """
    made = Samples({"input_ids": [], "labels": []})
    for conversation in conversations:
        ids, said = fitted(template, conversation.messages, context, made)
        if ids:
            said = said if train_on == "assistant" else [True] * len(ids)
            labels = [id_ if trained else IGNORED for id_, trained in zip(ids, said, strict=True)]
            made.add(ids, labels, tokens=len(ids), trained=sum(said))
    return _checked(made, "conversations", context)


def add_texts(made: Samples, texts: Iterable[str], template: ChatTemplate, context: int, tokens: int) -> int:
    """Append rows of plain text, documents joined by the end-of-text token, as a base model reads them; all tokens are trained.

    As many rows of `context` tokens as come closest to `tokens`, or as many as the texts give; returns how many.
    """
    row: list[int] = []
    rows, wanted = 0, round(tokens / context)
    for text in texts:
        row += [*template.plain(text), template.tokenizer.eos_token_id]
        while len(row) >= context and rows < wanted:
            made.add(row[:context], row[:context], tokens=context, trained=context)
            row = row[context:]
            rows += 1
        if rows == wanted:
            break
    return rows


def preference_samples(preferences: Iterable[Conversation], template: ChatTemplate, context: int) -> Samples:
    """Columns ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``. A pair with an answer that does not fit is dropped, not cut:
    a cut answer is another answer.

    Raises:
        InputError: not one pair fits `context`.
    """
    made = Samples({"prompt_ids": [], "chosen_ids": [], "rejected_ids": []})
    for pair in preferences:
        before = pair.messages[:-1]
        prompt = template.prompt(before)
        wholes = [template.encode((*before, Message("assistant", answer)))[0] for answer in pair.answers]
        if max(map(len, wholes)) > context:
            made.dropped += 1
            continue
        answers = [whole[len(prompt) :] for whole in wholes]
        trained = sum(map(len, answers))
        made.add(prompt, *answers, tokens=len(prompt) + trained, trained=trained)
    return _checked(made, "pairs", context)


def _checked(made: Samples, what: str, context: int) -> Samples:
    if not made.samples:
        raise InputError(
            f"all {made.dropped:,} {what} are longer than the context of {context} tokens. Shorten them, or give a longer "
            "--context or a model of more positions."
        )
    return made


def fitted(
    template: ChatTemplate, messages: Sequence[Message], context: int, made: Samples
) -> tuple[list[int], list[bool]]:
    """At most `context` tokens of a conversation: all of it, or its first exchanges, or the beginning of its first answer.

    So an answer is trained whole or from its beginning, never from its middle. Without ids: not one token of an answer fits.
    """
    ids, said = template.encode(messages)
    if len(ids) <= context:
        return ids, said
    answers = [number for number, message in enumerate(messages, 1) if message.role == "assistant"]
    for stop in reversed(answers[:-1]):
        shorter = template.encode(messages[:stop])
        if len(shorter[0]) <= context:
            made.turns += 1
            return shorter
    ids, said = ids[:context], said[:context]  # ends in the first exchange, else that would have fitted
    if not any(said):
        made.dropped += 1
        return [], []
    made.answers += 1
    return ids, said


def shown(template: ChatTemplate, ids: list[int], labels: list[int], colour: bool | None = None) -> str:
    """A sample as text, what is trained in green; where there is no colour, between ⟦ and ⟧."""
    if colour is None:
        colour = (sys.stdout.isatty() or "FORCE_COLOR" in os.environ) and "NO_COLOR" not in os.environ
    opening, closing = (GREEN, PLAIN) if colour else ("⟦", "⟧")
    pieces: list[str] = []
    pairs = zip(labels, ids, strict=True)
    for trained, group in itertools.groupby(pairs, key=lambda pair: pair[0] != IGNORED):
        text = str(template.tokenizer.decode([id_ for _, id_ in group], skip_special_tokens=False))
        pieces.append(f"{opening}{text}{closing}" if trained else text)
    return "".join(pieces)
