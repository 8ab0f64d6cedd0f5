"""A look at data before training: how much there is, how long documents are, which fields they come from, what is odd."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpt3.corpus.documents import Part, Source, total_size
from gpt3.corpus.files import KNOWN, FilePart, FileSource, advice, split_field
from gpt3.corpus.segments import document_key
from gpt3.corpus.slices import split_slice
from gpt3.corpus.sources import open_rows, open_sources
from gpt3.errors import InputError
from gpt3.tokenizer.encoder import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SAMPLE_BYTES = 16 << 20
"""Text that is read of large data: of several parts, the beginning of each."""
SAMPLE_PARTS = 32
FEW_TOKENS = 1_000_000
"""Less than this is little even for the smallest model."""
FEW_BYTES_PER_TOKEN = 3.0
"""English has 4.4 bytes per token of GPT-2's tokenizer; text that it does not suit has fewer."""
MANY_DUPLICATES = 0.01
"""Share of documents that hold another one's text, from which on it is said."""
SHORT_TOKENS = 32
MOST_NAMED = 10
"""Unreadable files that are named."""
PREVIEW_CHARACTERS = 160
AROUND_CUT = 60
"""Characters shown on each side of a cut."""


def preview(
    names: Sequence[str], tokenizer: PreTrainedTokenizerFast, tokenizer_name: str, context: int, documents: int
) -> dict[str, Any]:
    """What `names` hold, ready for JSON.

    Args:
        tokenizer, tokenizer_name: counts tokens.
        context: tokens of a training sequence, to show where documents are cut.
        documents: how many to show.

    Returns:
        ``documents``, ``bytes`` and ``tokens`` (estimates unless ``whole``), ``lengths`` in tokens, ``fields``,
        ``bytes_per_token``, ``duplicates`` (a share), ``shown`` and ``warnings``.

    Raises:
        InputError: see `open_sources`.
    """
    sources = open_sources(names, tokenizer=tokenizer_name, check=False)
    parts = [part for source in sources for part in source.parts()]
    texts, whole, unreadable = sample(parts)
    if not texts:
        raise InputError(unreadable[0] if unreadable else f"{', '.join(names)}: no documents in it, only empty texts")
    read = [len(text.encode("utf-8")) for text in texts]
    encoder = Encoder(tokenizer, threads=1)
    lengths = [int(length) + 1 for length in encoder.encode_batch(texts)[1]]
    total = sum(read) if whole else total_size(parts)
    scale = None if total is None else max(1.0, total / sum(read))
    found: dict[str, Any] = {
        "sources": [source.name for source in sources],
        "whole": whole,
        "bytes": total,
        "documents": None if scale is None else round(len(texts) * scale),
        "tokens": None if scale is None else round(sum(lengths) * scale),
        "bytes_per_token": sum(read) / sum(lengths),
        "lengths": quantiles(lengths),
        "longer_than_context": sum(length > context for length in lengths) / len(lengths),
        "duplicates": duplicates(texts),
        "fields": [fields(source) for source in sources],
        "shown": [shown(text, tokenizer, context) for text in spread(texts, documents)],
    }
    return found | {"warnings": [*refused(unreadable), *skipped(sources), *warnings(found, len(texts))]}


def sample(parts: Sequence[Part]) -> tuple[list[str], bool, list[str]]:
    """Documents from the beginnings of parts that lie evenly over the data, up to `SAMPLE_BYTES`.

    Returns:
        The texts, whether these are all, and what is wrong with files that cannot be read.
    """
    total = total_size(parts)
    chosen = list(parts) if total is not None and total <= SAMPLE_BYTES else spread(parts, SAMPLE_PARTS)
    texts: list[str] = []
    unreadable: list[str] = []
    whole = len(chosen) == len(parts)
    for part in chosen:
        left = SAMPLE_BYTES // len(chosen)
        for piece in part.stretches if isinstance(part, FilePart) else [part]:
            try:
                for text in piece.documents():
                    if left <= 0:
                        whole = False
                        break
                    texts.append(text)
                    left -= len(text.encode("utf-8"))
            except InputError as error:
                unreadable.append(str(error))
    return texts, whole, unreadable


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items, evenly over all of them."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def quantiles(lengths: Sequence[int]) -> dict[str, float]:
    """The smallest, the quartiles, the largest and the mean of lengths."""
    ordered = sorted(lengths)
    at = {"least": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "most": 1.0}
    return {name: ordered[round(share * (len(ordered) - 1))] for name, share in at.items()} | {
        "mean": statistics.fmean(lengths)
    }


def duplicates(texts: Sequence[str]) -> float:
    """The share of texts that are the same as an earlier one."""
    return 1 - len({document_key(text.encode("utf-8")) for text in texts}) / len(texts)


def fields(source: Source) -> dict[str, str]:
    """The fields of a source's first row and the kinds of their values; empty where its documents have no fields."""
    try:
        row = next((row for _, row in open_rows(split_field(split_slice(source.name)[0])[0])), {})
    except InputError:  # a source of text alone
        return {}
    return {name: type(value).__name__ for name, value in row.items()}


def shown(text: str, tokenizer: PreTrainedTokenizerFast, context: int) -> dict[str, Any]:
    """The beginning of a document, its tokens, and the text around the place where a sequence that begins with it ends."""
    offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    cut = None
    if len(offsets) > context:
        place = offsets[context][0]
        cut = [text[max(0, place - AROUND_CUT) : place], text[place : place + AROUND_CUT]]
    return {"text": text[:PREVIEW_CHARACTERS], "characters": len(text), "tokens": len(offsets) + 1, "cut": cut}


def skipped(sources: Sequence[Source]) -> list[str]:
    """A sentence for each folder that has files which are not read."""
    found = []
    for source in sources:
        if count := source.describe().get("skipped_files", 0):
            others = source.skipped if isinstance(source, FileSource) else ()
            names = [path.name for path in others[:MOST_NAMED]] + ["…"] * (count > MOST_NAMED)
            which = f" ({', '.join(names)})" if others else ""
            advised = f" {told}." if (told := advice(others)) else ""
            found.append(
                f"Skipped: {count:,} of the files in {source.name}{which}, of other kinds than {KNOWN}.{advised}"
            )
    return found


def refused(unreadable: Sequence[str]) -> list[str]:
    """A sentence for each file that cannot be read."""
    more = [f"Not read either: {len(unreadable) - MOST_NAMED:,} more files."] if len(unreadable) > MOST_NAMED else []
    return [f"Not read: {fault}. Training refuses it." for fault in unreadable[:MOST_NAMED]] + more


def warnings(found: dict[str, Any], read: int) -> list[str]:
    """What a user should know before training on it, a sentence each."""
    told = []
    tokens = found["tokens"]
    if tokens is not None and tokens < FEW_TOKENS:
        told.append(f"Tiny: {tokens:,} tokens. Even a small model overfits; add data, or fine-tune a trained model.")
    if found["documents"] == 1:
        told.append("One document alone: nothing can be held out for validation. Split it, or give --val.")
    if found["duplicates"] > MANY_DUPLICATES:
        told.append(f"Duplicates: {found['duplicates']:.1%} of the documents read are the same as an earlier one.")
    if found["bytes_per_token"] < FEW_BYTES_PER_TOKEN:
        told.append(
            f"The tokenizer does not suit this text: {found['bytes_per_token']:.1f} bytes per token, where English has 4.4. "
            "It may be another language or code; train one with gpt3 tokenizer train, or --tokenizer own:N."
        )
    if read > 1 and found["lengths"]["median"] < SHORT_TOKENS:
        told.append(
            f"Short documents: half have fewer than {found['lengths']['median'] + 1:,.0f} tokens. "
            "If these are lines of longer texts, join them."
        )
    return told
