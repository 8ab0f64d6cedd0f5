"""Rules about a document's figures (`gpt3.curation.statistics`): those of Gopher, C4 and FineWeb, or others.

A rule is a figure and its bounds; the first rule that a document breaks is the reason for dropping it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt3.curation.documents import Documents, Judgment
from gpt3.errors import InputError

Array = np.ndarray[Any, Any]
Columns = Mapping[str, Array]


@dataclass(frozen=True)
class Figure:
    """A number about a document."""

    summary: str
    count: str
    """A field of `gpt3.curation.statistics.FIELDS`, or plain_words: words but for symbols."""
    per: str = ""
    """The field that it is divided by, where it is a share."""


FIGURES = {
    "words": Figure("words but for symbols", "plain_words"),
    "word_length": Figure("mean characters of a word", "word_characters", "plain_words"),
    "hashes_per_word": Figure("# per word", "hashes", "words"),
    "ellipses_per_word": Figure("... and … per word", "ellipses", "words"),
    "bullet_lines": Figure("share of lines that begin with • or -", "bullet_lines", "lines"),
    "ellipsis_lines": Figure("share of lines that end with an ellipsis", "ellipsis_lines", "lines"),
    "letter_words": Figure("share of words with a letter", "letter_words", "words"),
    "stop_words": Figure("different words of the, be, to, of, and, that, have, with", "stop_words"),
    "ended_lines": Figure("share of lines that end with punctuation", "ended_lines", "lines"),
    "short_lines": Figure("share of lines of at most 30 characters", "short_lines", "lines"),
    "line_feeds_per_word": Figure("line feeds per word", "line_feeds", "words"),
    "sentences": Figure("sentences in lines of three words or more that end with one", "sentences"),
    "braces": Figure("{ in the text", "braces"),
    "lorem_ipsum": Figure("lorem ipsum in the text", "lorem_ipsum"),
    "repeated_lines": Figure("share of lines that came before", "repeated_lines", "lines"),
    "repeated_line_characters": Figure("their share of the characters", "repeated_line_characters", "characters"),
    "repeated_characters_of_lines": Figure(
        "their share of the characters of all lines", "repeated_line_characters", "line_characters"
    ),
    "repeated_paragraphs": Figure("share of paragraphs that came before", "repeated_paragraphs", "paragraphs"),
    "repeated_paragraph_characters": Figure(
        "their share of the characters", "repeated_paragraph_characters", "characters"
    ),
    **{
        f"top_{n}_gram": Figure(
            f"share of the characters in the most frequent {n}-gram", f"top_{n}_gram_characters", "characters"
        )
        for n in (2, 3, 4)
    },
    **{
        f"repeated_{n}_grams": Figure(
            f"share of the characters in {n}-grams that came before", f"repeated_{n}_gram_characters", "characters"
        )
        for n in range(5, 11)
    },
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
    raw["plain_words"] = raw["words"] - raw["symbols"]
    return {
        name: raw[figure.count] / np.maximum(1, raw[figure.per]) if figure.per else raw[figure.count]
        for name, figure in FIGURES.items()
    }


def broken(rules: Sequence[Rule], counts: Array) -> Array:
    """The number of the first rule that each document breaks, or -1: (documents,) int16."""
    found = np.full(len(counts), -1, dtype=np.int16)
    known = figures(counts)
    for number, rule in enumerate(rules):
        values = known[rule.figure]
        found[(found < 0) & ((values < rule.least) | (values > rule.most))] = number
    return found


def rules_of(given: Any) -> tuple[Rule, ...]:
    """The rules that a recipe names: a set, or figures with their bounds, such as ``{words: {least: 50}}``.

    Raises:
        InputError: unknown names or bounds; all of them, in one line.
    """
    if isinstance(given, str):
        if given not in SETS:
            raise InputError(f"heuristics {given!r} must be one of {', '.join(SETS)}, or figures with their bounds")
        return SETS[given]
    if not isinstance(given, Mapping):
        raise InputError(f"heuristics must name a set of rules, or figures with their bounds, not {given!r}")
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


def judge(documents: Documents, rules: tuple[Rule, ...]) -> Judgment:
    """Drop documents that break a rule; the reason is the first one."""
    from gpt3.curation.statistics import VERSION, measure

    found = np.concatenate([broken(rules, rows) for rows in documents.rows("figures", {"version": VERSION}, measure)])
    return Judgment({rule.name: found == number for number, rule in enumerate(rules)}, [rule.name for rule in rules])
