"""Words that occur more often in one group of texts than in the others (section 6.2): which they are, and their sentiment.

A word counts once per text, so that a text which repeats itself has no more weight than another. How much a word favours a group
is the ratio of its rate in the group's texts to its rate in all others'; half a text is added to both counts, so that a word of
three texts does not outweigh one of a hundred. Words of fewer than `LEAST` texts, function words, and the words of the prompts
are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt3.evaluation.lexicon import sentiment

LEAST = 3
"""Texts that have a word."""
FAVOURED = 100
"""Words of which the sentiment is taken; the paper looked at as many."""
RESAMPLED = 100
"""Times that texts are drawn again, or shuffled."""
WORD = re.compile(r"[a-z]+(?:[-'’][a-z]+)*")
FUNCTION_WORDS = frozenset(
    WORD.findall(
        "a about above after again against all almost also although always am among an and another any are as at away "
        "back be became because become been before being below between both but by can cannot could did do does down "
        "during each either else enough even ever every few for from further get had has have having he her here hers "
        "herself him himself his how however i if in indeed into is it its itself just least less like made make many "
        "may me might more most much must my myself neither never no nor not nothing now of off often on once one only "
        "or other others our ours out over own per perhaps quite rather said same shall she should since so some still "
        "such than that the their theirs them themselves then there therefore these they thing things this those though "
        "three through thus to together too toward towards two under until up upon us very was we well were what when "
        "where whether which while who whom whose why will with within without would yes yet you your yours"
    )
)


def words_of(text: str) -> set[str]:
    """A text's words in lower case, each once, without function words and parts of contractions."""
    found = {word.replace("’", "'") for word in WORD.findall(text.lower())}
    return {word.removesuffix("'s") for word in found if "n't" not in word} - FUNCTION_WORDS


@dataclass(frozen=True)
class Cooccurrence:
    """Texts of several groups as pairs of a text and a word that it has."""

    names: tuple[str, ...]
    """Of the groups."""
    groups: np.ndarray[Any, Any]
    """Group of each text, (texts,) int."""
    words: tuple[str, ...]
    texts: np.ndarray[Any, Any]
    """Text of each pair, (pairs,) int."""
    places: np.ndarray[Any, Any]
    """Word of each pair, (pairs,) int."""

    def counts(self, groups: np.ndarray[Any, Any] | None = None, weights: np.ndarray[Any, Any] | None = None) -> Any:
        """Texts that have a word, (groups, words) float.

        Args:
            groups: of each text, in place of its own.
            weights: of each text; None: 1.
        """
        groups = self.groups if groups is None else groups
        shape = len(self.names), len(self.words)
        cells = groups[self.texts] * shape[1] + self.places
        each = None if weights is None else weights[self.texts]
        return np.bincount(cells, each, shape[0] * shape[1]).reshape(shape)

    def favour(self, groups: np.ndarray[Any, Any] | None = None, weights: np.ndarray[Any, Any] | None = None) -> Any:
        """Log of the ratio of a word's rate in a group to its rate in the others, (groups, words) float."""
        groups = self.groups if groups is None else groups
        counts = self.counts(groups, weights)
        sizes = np.bincount(groups, weights, len(self.names))[:, None]
        others = counts.sum(0) - counts + 0.5
        return np.log((counts + 0.5) / (sizes + 1)) - np.log(others / (sizes.sum() - sizes + 1))


def cooccurrence(
    texts: Mapping[str, Sequence[str]], without: Sequence[str] = (), keep: Callable[[str], bool] = bool
) -> Cooccurrence:
    """The words of each group's texts.

    Args:
        texts: by group.
        without: words to leave out.
        keep: which words to count; default: all.
    """
    groups = np.array([number for number, some in enumerate(texts.values()) for _ in some])
    found = [words_of(text) - set(without) for some in texts.values() for text in some]
    number: dict[str, int] = {}
    for words in found:
        for word in words:
            number[word] = number.get(word, 0) + 1
    chosen = sorted(word for word, count in number.items() if count >= LEAST and keep(word))
    place = {word: at for at, word in enumerate(chosen)}
    pairs = [(at, place[word]) for at, words in enumerate(found) for word in words if word in place]
    table = np.array(pairs, dtype=int).reshape(-1, 2)
    return Cooccurrence(tuple(texts), groups, tuple(chosen), table[:, 0], table[:, 1])


def most_favoured(found: Cooccurrence, count: int) -> dict[str, list[tuple[str, int]]]:
    """By group, the words that favour it most, with the number of its texts that have them; none that favours another."""
    favour, counts = found.favour(), found.counts()
    result = {}
    for at, name in enumerate(found.names):
        order = [word for word in np.argsort(-favour[at], kind="stable") if favour[at, word] > 0 and counts[at, word]]
        result[name] = [(found.words[word], int(counts[at, word])) for word in order[:count]]
    return result


def sentiments(found: Cooccurrence, seed: int) -> dict[str, tuple[float, float]]:
    """By group, the mean sentiment of the `FAVOURED` words that favour it most, each weighted by its texts; and its error.

    The standard error is the bootstrap's: texts are drawn again, and with them the words.
    """
    scores = np.array([sentiment(word) for word in found.words])
    rng = np.random.default_rng(seed)
    drawn = [_sentiments(found, scores, rng.poisson(1.0, len(found.groups)).astype(float)) for _ in range(RESAMPLED)]
    errors = np.std(drawn, axis=0, ddof=1)
    return {
        name: (float(value), float(error))
        for name, value, error in zip(found.names, _sentiments(found, scores), errors, strict=True)
    }


def _sentiments(found: Cooccurrence, scores: Any, weights: Any = None) -> list[float]:
    favour, counts = found.favour(weights=weights), found.counts(weights=weights)
    means = []
    for mine, own in zip(favour, counts, strict=True):
        order = np.argsort(-mine, kind="stable")
        best = order[(mine[order] > 0) & (own[order] > 0)][:FAVOURED]
        means.append(float(np.average(scores[best], weights=own[best])) if len(best) else 0.0)
    return means


def differ(found: Cooccurrence, seed: int) -> float:
    """How often groups of texts drawn at random differ in their words as much as these do: a permutation test's p-value.

    The difference is the mean of the absolute `favour` over groups and words.
    """
    if not found.words:
        return 1.0
    rng = np.random.default_rng(seed)
    mine = np.abs(found.favour()).mean()
    others = [np.abs(found.favour(rng.permutation(found.groups))).mean() for _ in range(RESAMPLED)]
    return float((1 + sum(other >= mine for other in others)) / (1 + RESAMPLED))
