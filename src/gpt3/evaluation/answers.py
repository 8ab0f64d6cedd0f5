"""How close written answers are to the accepted ones, by the rule of each dataset's own scorer.

Measures take an answer and its item and give acc (the exact match) and f1, 0 to 1. All but DROP's compare as SQuAD's (Rajpurkar
et al. 2016): without upper case, punctuation, the articles a, an, the, and white space but single spaces. Figures of all answers
together (BLEU and some F1, which are not means over the questions) take all results and give a value and its standard error.
"""

from __future__ import annotations

import math
import random
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from gpt3.errors import require
from gpt3.evaluation import Item, Result

UNANSWERABLE = "unanswerable"
"""What our prompts say where SQuAD 2.0 has no answer; the paper does not give its word."""
CANNOT = "CANNOTANSWER"
"""QuAC's own word for it."""
ROUNDS = 1000
"""Bootstrap samples (Koehn 2004) of as many answers, drawn with replacement; the error is the deviation of their figures."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")

# ---- one answer


def normalize(text: str) -> str:
    """A text as it is compared."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, accepted: str) -> float:
    """1 if both are the same once normalized, else 0."""
    return float(normalize(answer) == normalize(accepted))


def f1(answer: str, accepted: str) -> float:
    """Harmonic mean of precision and recall over the words, with their counts; 1 if both have none."""
    words, right = normalize(answer).split(), normalize(accepted).split()
    if not words or not right:
        return float(words == right)
    common = sum((Counter(words) & Counter(right)).values())
    return 2 * common / (len(words) + len(right))


def best(answer: str, accepted: Sequence[str]) -> dict[str, float]:
    """The best of all accepted answers, for each figure (SQuAD, TriviaQA, ReCoRD)."""
    return {"acc": max(exact_match(answer, one) for one in accepted), "f1": max(f1(answer, one) for one in accepted)}


def leave_one_out(answer: str, accepted: Sequence[str]) -> dict[str, float]:
    """The mean of `best` over the accepted answers without one of them: as each human's answer is scored (CoQA, QuAC)."""
    if len(accepted) == 1:
        return best(answer, accepted)
    rounds = [best(answer, [*accepted[:place], *accepted[place + 1 :]]) for place in range(len(accepted))]
    return {name: sum(found[name] for found in rounds) / len(rounds) for name in rounds[0]}


def _accepted(item: Item) -> list[str]:
    return [completion.strip() for completion in item.completions]


def squad(answer: str, item: Item) -> dict[str, float]:
    """The best of all accepted answers."""
    return best(answer, _accepted(item))


def squad2(answer: str, item: Item) -> dict[str, float]:
    """The same; "unanswerable" is the empty answer (Rajpurkar et al. 2018)."""
    said, *accepted = ("" if normalize(text) == UNANSWERABLE else text for text in (answer, *_accepted(item)))
    return best(said, accepted)


def coqa(answer: str, item: Item) -> dict[str, float]:
    """Each of several people's answers is left out once (Reddy et al. 2019)."""
    return leave_one_out(answer, _accepted(item))


def quac(answer: str, item: Item) -> dict[str, float]:
    """The same; if at least half the people found no answer, "CANNOTANSWER" alone is right (Choi et al. 2018).

    No question is left out for its people's disagreement: the paper counts them all (7,353, Table C.1).
    """
    accepted = _accepted(item)
    spans = [one for one in accepted if one != CANNOT]
    return leave_one_out(answer, spans if 2 * len(spans) > len(accepted) else [CANNOT])


def record(answer: str, item: Item) -> dict[str, float]:
    """An entity compared with those that are right (Zhang et al. 2018)."""
    return best(answer, [item.names[place] for place in item.rights])


def wsc(answer: str, item: Item) -> dict[str, float]:
    """Whether the noun is given exactly if it is right.

    It counts as given if all words of one of the two are words of the other, as T5 (Raffel et al. 2020) reads its answers.
    """
    said, noun = set(normalize(answer).split()), set(normalize(item.completions[0]).split())
    same = bool(said and noun) and (said <= noun or noun <= said)
    return {"acc": float(same == bool(item.rights))}


def drop(answer: str, item: Item) -> dict[str, float]:
    """Bags of words, numbers by their value; a span whose number is missing counts nothing (Dua et al. 2019).

    The model's answer is one span; of an accepted answer of several, the closest counts, divided by their number.
    """
    said = _drop_words(answer)
    accepted = [[_drop_words(span) for span in spans] for spans in item.spans]
    closest = [max(_bag_f1(set(said.split()), set(bag.split())) for bag in bags) / len(bags) for bags in accepted]
    return {"acc": float([said] in accepted), "f1": round(max(closest), 2)}


def _number(text: str) -> str | None:
    try:
        return str(float(text))
    except ValueError:
        return None


def _drop_words(text: str) -> str:
    words = []
    for word in re.split("[ -]", text.lower()):
        word = word if _number(word) else word.translate(_PUNCTUATION)
        words.append(" ".join(_ARTICLES.sub(" ", _number(word) or word).split()))
    return " ".join(word for word in words if word)


def _bag_f1(said: set[str], right: set[str]) -> float:
    numbers = {word for word in right if _number(word)}
    if numbers and not numbers & said:
        return 0.0
    common = len(said & right)
    precision = common / len(said) if said else 1.0
    recall = common / len(right) if right else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# ---- all answers together


def bleu(results: Sequence[Result]) -> tuple[float, float]:
    """Corpus BLEU as the paper's Table H.1 has it under "sb".

    sacrebleu's case.mixed, numrefs.1, smooth.exp, tok.intl. The paper's other one, "mb", needs Moses' and XLM's scripts.
    """
    sacrebleu = require("sacrebleu.metrics", extra="eval", purpose="BLEU")
    metric = sacrebleu.BLEU(tokenize="intl", smooth_method="exp", effective_order=True)  # for sentences: no warnings
    parts = [metric.sentence_score(result.answer, [result.gold]) for result in results]
    counts = np.array([[*part.counts, *part.totals, part.sys_len, part.ref_len] for part in parts])  # (n, 4 + 4 + 2)

    def corpus(rows: np.ndarray) -> float:
        sums = rows.sum(0).tolist()
        found = sacrebleu.BLEU.compute_bleu(
            correct=sums[:4], total=sums[4:8], sys_len=sums[8], ref_len=sums[9], smooth_method="exp"
        )
        return float(found.score) / 100

    draw = np.random.default_rng(0)
    samples = [corpus(counts[draw.integers(len(counts), size=len(counts))]) for _ in range(ROUNDS)]
    return corpus(counts), float(np.std(samples, ddof=1))


Pairs = Sequence[tuple[int, int]]
"""Of several questions, the option chosen and the right one."""


def macro_f1(results: Sequence[Result], count: int | None = None) -> tuple[float, float]:
    """F1 of each class, and their mean, unweighted (CommitmentBank).

    Args:
        count: classes, each of which counts; None: those that are right or chosen somewhere.
    """

    def score(some: Pairs) -> float:
        classes = range(count) if count else sorted({place for pair in some for place in pair})
        return math.fsum(_f1(some, place) for place in classes) / len(classes)

    return _bootstrap([(result.detail["chosen"], result.detail["right"]) for result in results], score)


def multirc_acc(results: Sequence[Result]) -> tuple[float, float]:
    """Questions of which every answer is labelled right (Khashabi et al. 2018)."""
    whole = [float(all(chosen == right for chosen, right in pairs)) for pairs in _by_question(results)]
    middle = math.fsum(whole) / len(whole)
    return middle, math.sqrt(middle * (1 - middle) / max(1, len(whole) - 1))


def multirc_f1a(results: Sequence[Result]) -> tuple[float, float]:
    """F1 of "true" over all answers of all questions (Khashabi et al. 2018)."""
    return _bootstrap(_by_question(results), lambda some: _f1([pair for pairs in some for pair in pairs], 0))


def _by_question(results: Sequence[Result]) -> list[Pairs]:
    """MultiRC's answers by question; an answer's id is its question's, a hyphen and its own number."""
    questions: dict[str, list[tuple[int, int]]] = {}
    for result in results:
        questions.setdefault(result.id.rpartition("-")[0], []).append((result.detail["chosen"], result.detail["right"]))
    return list(questions.values())


def _f1(pairs: Pairs, place: int) -> float:
    """F1 of finding one class in pairs of (chosen, right); 0 if it is neither."""
    both = sum(chosen == right == place for chosen, right in pairs)
    either = sum(chosen == place for chosen, _ in pairs) + sum(right == place for _, right in pairs)
    return 2 * both / either if either else 0.0


def _bootstrap(units: Sequence, score: Callable[[Sequence], float]) -> tuple[float, float]:
    draw = random.Random(0)
    samples = [score(draw.choices(units, k=len(units))) for _ in range(ROUNDS)]
    return score(units), float(np.std(samples, ddof=1))
