"""Rules about a document's figures (`gpt3.curation.statistics`): those of Gopher, C4 and FineWeb, or others.

A rule is a figure and its bounds; the first rule that a document breaks is the reason for dropping it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt3.errors import InputError

Array = np.ndarray[Any, Any]
Columns = Mapping[str, Array]

FIGURES = {
    "words": "words but for symbols",
    "word_length": "mean characters of a word",
    "hashes_per_word": "# per word",
    "ellipses_per_word": "... and … per word",
    "bullet_lines": "share of lines that begin with • or -",
    "ellipsis_lines": "share of lines that end with an ellipsis",
    "letter_words": "share of words with a letter",
    "stop_words": "different words of the, be, to, of, and, that, have, with",
    "ended_lines": "share of lines that end with punctuation",
    "short_lines": "share of lines of at most 30 characters",
    "line_feeds_per_word": "line feeds per word",
    "sentences": "sentences in lines of three words or more that end with one",
    "braces": "{ in the text",
    "lorem_ipsum": "lorem ipsum in the text",
    "repeated_lines": "share of lines that came before",
    "repeated_line_characters": "their share of the characters",
    "repeated_characters_of_lines": "their share of the characters of all lines",
    "repeated_paragraphs": "share of paragraphs that came before",
    "repeated_paragraph_characters": "their share of the characters",
    **{f"top_{n}_gram": f"share of the characters in the most frequent {n}-gram" for n in (2, 3, 4)},
    **{f"repeated_{n}_grams": f"share of the characters in {n}-grams that came before" for n in range(5, 11)},
}
"""What rules may be about."""


@dataclass(frozen=True)
class Rule:
    """Bounds of a figure, both allowed."""

    figure: str
    least: float = -math.inf
    most: float = math.inf

    @property
    def name(self) -> str:
        """The reason for dropping a document, such as ``words<50``."""
        low = f"{self.figure}<{self.least:g}" if self.least > -math.inf else ""
        high = f"{self.figure}>{self.most:g}" if self.most < math.inf else ""
        return f"{low} or {high}" if low and high else low or high


GOPHER_QUALITY = (
    Rule("words", 50, 100_000),
    Rule("word_length", 3, 10),
    Rule("hashes_per_word", most=0.1),
    Rule("ellipses_per_word", most=0.1),
    Rule("bullet_lines", most=0.9),
    Rule("ellipsis_lines", most=0.3),
    Rule("letter_words", least=0.8),
    Rule("stop_words", least=2),
)
"""Rae et al. 2021 (arXiv 2112.11446), App. A.1.1."""
GOPHER_REPETITION = (
    Rule("repeated_paragraphs", most=0.3),
    Rule("repeated_paragraph_characters", most=0.2),
    Rule("repeated_lines", most=0.3),
    Rule("repeated_line_characters", most=0.2),
    *(Rule(f"top_{n}_gram", most=most) for n, most in ((2, 0.2), (3, 0.18), (4, 0.16))),
    *(Rule(f"repeated_{n}_grams", most=(20 - n) / 100) for n in range(5, 11)),
)
"""Rae et al. 2021, Table A1."""
C4 = (Rule("sentences", least=5), Rule("braces", most=0), Rule("lorem_ipsum", most=0))
"""Raffel et al. 2020 (arXiv 1910.10683), section 2.2, of whole documents: no line is removed. Five sentences: its code."""
FINEWEB = (
    Rule("ended_lines", least=0.12),
    Rule("short_lines", most=0.67),
    Rule("repeated_characters_of_lines", most=0.1),
    Rule("line_feeds_per_word", most=0.3),
)
"""Penedo et al. 2024 (arXiv 2406.17557), section 3.5, and the ratio of line feeds of its code."""
SETS: dict[str, tuple[Rule, ...]] = {
    "none": (),
    "gopher": (*GOPHER_QUALITY, *GOPHER_REPETITION),
    "c4": C4,
    "fineweb": (*GOPHER_QUALITY, *GOPHER_REPETITION, *C4[1:], *FINEWEB),
}
"""By name. fineweb: Gopher's, C4's but for the ends of lines, and its own."""


def figures(counts: Array) -> Columns:
    """The figures of documents, float64 (documents,) each, from their counts (`gpt3.curation.statistics.measure`)."""
    from gpt3.curation.statistics import FIELDS

    raw = {name: counts[:, number].astype(np.float64) for number, name in enumerate(FIELDS)}

    def share(name: str, whole: str) -> Array:
        return raw[name] / np.maximum(1, raw[whole])

    plain = raw["words"] - raw["symbols"]
    return {
        "words": plain,
        "word_length": raw["word_characters"] / np.maximum(1, plain),
        "hashes_per_word": share("hashes", "words"),
        "ellipses_per_word": share("ellipses", "words"),
        "bullet_lines": share("bullet_lines", "lines"),
        "ellipsis_lines": share("ellipsis_lines", "lines"),
        "letter_words": share("letter_words", "words"),
        "stop_words": raw["stop_words"],
        "ended_lines": share("ended_lines", "lines"),
        "short_lines": share("short_lines", "lines"),
        "line_feeds_per_word": share("line_feeds", "words"),
        "sentences": raw["sentences"],
        "braces": raw["braces"],
        "lorem_ipsum": raw["lorem_ipsum"],
        "repeated_lines": share("repeated_lines", "lines"),
        "repeated_line_characters": share("repeated_line_characters", "characters"),
        "repeated_characters_of_lines": share("repeated_line_characters", "line_characters"),
        "repeated_paragraphs": share("repeated_paragraphs", "paragraphs"),
        "repeated_paragraph_characters": share("repeated_paragraph_characters", "characters"),
        **{f"top_{n}_gram": share(f"top_{n}_gram_characters", "characters") for n in (2, 3, 4)},
        **{f"repeated_{n}_grams": share(f"repeated_{n}_gram_characters", "characters") for n in range(5, 11)},
    }


def broken(rules: Sequence[Rule], counts: Array) -> Array:
    """The number of the first rule that each document breaks, or -1: (documents,) int16."""
    found = np.full(len(counts), -1, dtype=np.int16)
    known = figures(counts)
    for number, rule in enumerate(rules):
        values = known[rule.figure]
        found[(found < 0) & ((values < rule.least) | (values > rule.most))] = number
    return found


def rules_of(given: str | Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules that a recipe names: a set, or figures with their bounds, such as ``{words: {least: 50}}``.

    Raises:
        InputError: unknown names or bounds; all of them, in one line.
    """
    if isinstance(given, str):
        if given not in SETS:
            raise InputError(f"heuristics {given!r} must be one of {', '.join(SETS)}, or figures with their bounds")
        return SETS[given]
    problems, rules = [], []
    for figure, bounds in given.items():
        if figure not in FIGURES:
            problems.append(f"{figure} is no figure; known are {', '.join(FIGURES)}")
        elif not isinstance(bounds, Mapping) or not bounds or not {"least", "most"} >= set(bounds):
            problems.append(f"{figure} must have least or most or both, such as {{least: 50}}")
        elif wrong := [v for v in bounds.values() if isinstance(v, bool) or not isinstance(v, (int, float))]:
            problems.append(f"{figure}: {wrong[0]!r} must be a number")
        else:
            rules.append(Rule(figure, **bounds))
    if problems:
        raise InputError(f"heuristics: {'; '.join(problems)}")
    return tuple(rules)
