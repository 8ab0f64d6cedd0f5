"""Which conversations are kept: small named tests, each counted in the report."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from gpt3.finetuning.conversations import Conversation

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
SHINGLE, HASHES, BANDS = 3, 64, 16
NEAR = 0.8
"""Texts with at least this share of equal minimum hashes are near duplicates; it estimates the Jaccard similarity of their
three-word shingles."""


def english(item: Conversation) -> bool:
    """Whether question and answers are English, by script and function words; short texts by their script alone."""
    text = " ".join([item.question, *item.answers]).lower()
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
        text = "\n".join([item.question, *item.answers])
        key = hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "replace")).digest()
        new = key not in self._seen
        self._seen.add(key)
        return new


class FirstOfItsKind:
    """Whether no conversation before it was nearly the same: MinHash over three-word shingles (Broder 1997), banded.

    At similarity s the four rows of a band agree with probability s**4, one of 16 bands with 1 - (1 - s**4)**16: 0.9998 at 0.8.
    """

    def __init__(self) -> None:
        import numpy as np

        generator = np.random.Generator(np.random.PCG64(0))
        self._factors = generator.integers(1, 2**63, HASHES, dtype=np.uint64) | np.uint64(1)
        self._offsets = generator.integers(0, 2**63, HASHES, dtype=np.uint64)
        self._bands: dict[bytes, list[int]] = {}
        self._signatures: list[Any] = []

    def __call__(self, item: Conversation) -> bool:
        """Remember it and say whether it is new."""
        import numpy as np

        words = WORD.findall("\n".join([item.question, *item.answers]).lower())
        count = max(1, len(words) - SHINGLE + 1)
        shingles = {" ".join(words[start : start + SHINGLE]) for start in range(count)}
        digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in sorted(shingles))
        values = np.frombuffer(digests, np.uint64)
        with np.errstate(over="ignore"):
            mixed = values[:, None] * self._factors + self._offsets  # (shingles, HASHES), modulo 2**64
        signature = (mixed ^ (mixed >> np.uint64(29))).min(axis=0)
        keys = [bytes([band]) + part.tobytes() for band, part in enumerate(np.split(signature, BANDS))]
        candidates = {number for key in keys for number in self._bands.get(key, ())}
        if any((self._signatures[number] == signature).mean() >= NEAR for number in candidates):
            return False
        for key in keys:
            self._bands.setdefault(key, []).append(len(self._signatures))
        self._signatures.append(signature)
        return True


FILTERS: dict[str, Callable[[], Filter]] = {
    "duplicates": FirstSeen,
    "near-duplicates": FirstOfItsKind,
    "english": lambda: english,
    "length": lambda: length,
    "refusals": lambda: no_refusal,
}
"""Names that --filter takes; each makes a test that says whether a conversation stays."""
