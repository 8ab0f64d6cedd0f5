"""The text that a fine-tuned run was trained on: its conversations and replayed articles, read again as the run read them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from gpt3.corpus.documents import Part, not_blank
from gpt3.errors import InputError
from gpt3.finetuning.conversations import Conversation
from gpt3.finetuning.gathering import gather, replay_texts
from gpt3.finetuning.options import FinetuneOptions
from gpt3.report.run_folder import CONFIG, DATA

PART = 2000
"""Texts of a part, so that several processes share them."""


@dataclass(frozen=True)
class Texts(Part):
    """Some of the run's texts."""

    name: str
    texts: tuple[str, ...]

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes of UTF-8."""
        return sum(len(text.encode("utf-8", "replace")) for text in self.texts)

    def documents(self) -> Iterator[str]:
        """Each text that is not blank."""
        return not_blank(self.texts)


def parts_of_tuned(run: Path) -> tuple[list[Part], str]:
    """The texts of a fine-tuned run, without those held out, and the base model that it names.

    Replayed are as many of the articles as the run has tokens for; all that it may replay are given.

    Raises:
        InputError: the folder cannot be read, or its data has changed since it was trained.
    """
    try:
        saved = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(FinetuneOptions)}
        options = FinetuneOptions(**{name: value for name, value in saved.items() if name in known})
        recorded = json.loads((run / DATA).read_text(encoding="utf-8"))["sources"]
        counts = [(row["name"], row["documents"]) for row in recorded]
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"--model {run}: its {CONFIG} and {DATA} cannot be read ({error}). Name the training text with --data."
        ) from None
    collection = gather(options)
    if [(report.name, report.train) for report in collection.reports] != counts:
        raise InputError(
            f"--model {run}: its data has changed since it was trained. Name the text it read with --data."
        )
    texts = [text_of(conversation) for conversation in collection.train]
    if options.replayed:
        texts += replay_texts(options.validation_fraction, options.seed)
    groups = range(0, len(texts), PART)
    parts: list[Part] = [
        Texts(f"{run.name}: texts from {begin}", tuple(texts[begin : begin + PART])) for begin in groups
    ]
    return parts, str(options.model)


def text_of(conversation: Conversation) -> str:
    """All that a conversation says, the system message first, one line per message."""
    return "\n".join(filter(None, (conversation.system, *conversation.texts)))
