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
class Cuts:
    """How many samples were made, and what did not fit the context."""

    samples: int = 0
    trained_tokens: int = 0
    tokens: int = 0
    turns: int = 0
    """Conversations that lost their last exchanges."""
    answers: int = 0
    """Conversations whose only remaining answer lost its end."""
    dropped: int = 0
    """Conversations whose first question alone fills the context; pairs that are too long."""

    def count(self, tokens: int, trained: int) -> None:
        """Count one sample."""
        self.samples += 1
        self.tokens += tokens
        self.trained_tokens += trained

    def line(self, context: int) -> str:
        """A summary to print."""
        text = f"{self.samples:,} samples, {self.tokens:,} tokens, {self.trained_tokens:,} of them trained"
        kinds = (
            ("lost their last turns", self.turns),
            ("lost the end of their answer", self.answers),
            ("dropped", self.dropped),
        )
        lost = [f"; {count:,} {what}" for what, count in kinds if count]
        return text + "".join(lost) + (f" (context {context})" if lost else "")


@dataclass(frozen=True)
class Samples:
    """Samples as columns, as `datasets.Dataset.from_dict` takes them, each value a list of ids."""

    columns: dict[str, list[list[int]]]
    cuts: Cuts

    def add(self, other: Samples) -> None:
        """Append another's samples."""
        for name, column in other.columns.items():
            self.columns[name] += column
        self.cuts.samples += other.cuts.samples
        self.cuts.tokens += other.cuts.tokens
        self.cuts.trained_tokens += other.cuts.trained_tokens


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
    ids: list[list[int]] = []
    labels: list[list[int]] = []
    cuts = Cuts()
    for conversation in conversations:
        tokens, said = fitted(template, conversation.messages, context, cuts)
        if tokens:
            said = said if train_on == "assistant" else [True] * len(tokens)
            ids.append(tokens)
            labels.append([token if trained else IGNORED for token, trained in zip(tokens, said, strict=True)])
            cuts.count(len(tokens), sum(said))
    if not ids:
        raise _none_fits(f"{cuts.dropped:,} conversations", context)
    return Samples({"input_ids": ids, "labels": labels}, cuts)


def text_samples(texts: Iterable[str], template: ChatTemplate, context: int, tokens: int) -> Samples:
    """Rows of plain text, documents joined by the end-of-text token, as a base model reads them; every token is trained.

    As many rows of `context` tokens as come closest to `tokens`, or as many as the texts give.
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
    return Samples({"input_ids": ids, "labels": [list(one) for one in ids]}, Cuts(len(ids), total, total))


def preference_samples(preferences: Iterable[Conversation], template: ChatTemplate, context: int) -> Samples:
    """Columns ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``. A pair with an answer that does not fit is dropped, not cut:
    a cut answer is another answer.

    Raises:
        InputError: not one pair fits `context`.
    """
    columns: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    cuts = Cuts()
    for pair in preferences:
        before = pair.messages[:-1]
        prompt = template.prompt(before)
        wholes = [template.encode((*before, Message("assistant", answer)))[0] for answer in pair.answers]
        if max(map(len, wholes)) > context:
            cuts.dropped += 1
            continue
        answers = [whole[len(prompt) :] for whole in wholes]
        for column, ids in zip(columns.values(), (prompt, *answers), strict=True):
            column.append(ids)
        trained = sum(map(len, answers))
        cuts.count(len(prompt) + trained, trained)
    if not cuts.samples:
        raise _none_fits(f"{cuts.dropped:,} pairs", context)
    return Samples(columns, cuts)


def _none_fits(what: str, context: int) -> InputError:
    return InputError(
        f"all {what} are longer than the context of {context} tokens. Shorten them, or give a longer --context or a model of "
        "more positions."
    )


def fitted(
    template: ChatTemplate, messages: Sequence[Message], context: int, cuts: Cuts
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
            cuts.turns += 1
            return shorter
    ids, said = ids[:context], said[:context]  # ends in the first exchange, else that would have fitted
    if not any(said):
        cuts.dropped += 1
        return [], []
    cuts.answers += 1
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
