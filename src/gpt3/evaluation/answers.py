"""How near a written answer is to the accepted ones, by the rule of each data set's own scorer.

All but DROP's compare as SQuAD's (Rajpurkar et al. 2016): without upper case, punctuation, the articles a, an, the, and white
space but single spaces. `MEASURES` are functions of an answer and its item; they give acc (the exact match) and f1, 0 to 1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from gpt3.evaluation.items import Item, Measure

UNANSWERABLE = "unanswerable"
"""What our prompts say where SQuAD 2.0 has no answer; the paper does not tell its word."""
CANNOT = "CANNOTANSWER"
"""QuAC's own word for it."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> str:
    """A text as it is compared."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, accepted: str) -> float:
    """1 where both are the same but for what does not count, else 0."""
    return float(normalize(answer) == normalize(accepted))


def f1(answer: str, accepted: str) -> float:
    """Harmonic mean of precision and recall over the words, with their counts; 1 where both have none."""
    words, right = normalize(answer).split(), normalize(accepted).split()
    if not words or not right:
        return float(words == right)
    common = sum((Counter(words) & Counter(right)).values())
    return 2 * common / (len(words) + len(right))


def best(answer: str, accepted: Sequence[str]) -> dict[str, float]:
    """The better of all accepted answers, for each figure (SQuAD, TriviaQA, ReCoRD)."""
    return {
        "acc": max(exact_match(answer, one) for one in accepted),
        "f1": max(f1(answer, one) for one in accepted),
    }


def leave_one_out(answer: str, accepted: Sequence[str]) -> dict[str, float]:
    """The mean of `best` over the accepted answers without one of them: as each human's answer is scored (CoQA, QuAC)."""
    if len(accepted) == 1:
        return best(answer, accepted)
    rounds = [best(answer, [*accepted[:place], *accepted[place + 1 :]]) for place in range(len(accepted))]
    return {name: sum(found[name] for found in rounds) / len(rounds) for name in rounds[0]}


def _accepted(item: Item) -> list[str]:
    return [completion.strip() for completion in item.completions]


def squad(answer: str, item: Item) -> dict[str, float]:
    """The better of all accepted answers."""
    return best(answer, _accepted(item))


def squad2(answer: str, item: Item) -> dict[str, float]:
    """The same; "unanswerable" is the empty answer (Rajpurkar et al. 2018)."""
    return best(_answered(answer), [_answered(one) for one in _accepted(item)])


def _answered(text: str) -> str:
    return "" if normalize(text) == UNANSWERABLE else text


def coqa(answer: str, item: Item) -> dict[str, float]:
    """Each of several people's answers is left out once (Reddy et al. 2019)."""
    return leave_one_out(answer, _accepted(item))


def quac(answer: str, item: Item) -> dict[str, float]:
    """The same; where at least half the people found no answer, "CANNOTANSWER" alone is right (Choi et al. 2018).

    No question is left out for its people's disagreement: the paper counts them all (7,353, Table C.1).
    """
    accepted = _accepted(item)
    spans = [one for one in accepted if one != CANNOT]
    return leave_one_out(answer, spans if 2 * len(spans) > len(accepted) else [CANNOT])


def record(answer: str, item: Item) -> dict[str, float]:
    """An entity against those that are right (Zhang et al. 2018)."""
    return best(answer, [item.names[place] for place in item.rights])


def wsc(answer: str, item: Item) -> dict[str, float]:
    """Whether saying or not saying the noun is right.

    The noun is said where all words of one of both are words of the other, as T5 (Raffel et al. 2020) reads its answers.
    """
    said, noun = set(normalize(answer).split()), set(normalize(item.completions[0]).split())
    same = bool(said and noun) and (said <= noun or noun <= said)
    return {"acc": float(same == bool(item.rights))}


def drop(answer: str, item: Item) -> dict[str, float]:
    """Bags of words, numbers by their value; a span whose number is missing counts nothing (Dua et al. 2019).

    What the model writes is one span; of an accepted answer of several, the nearest counts, divided by their number.
    """
    said = _drop_words(answer)
    found = {"acc": 0.0, "f1": 0.0}
    for spans in item.spans:
        bags = [_drop_words(span) for span in spans]
        found["acc"] = max(found["acc"], float(len(bags) == 1 and said == bags[0]))
        nearest = max(_bag_f1(set(said.split()), set(bag.split())) for bag in bags)
        found["f1"] = max(found["f1"], round(nearest / len(bags), 2))
    return found


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


MEASURES: dict[Measure, Callable[[str, Item], dict[str, float]]] = {
    "squad": squad,
    "squad2": squad2,
    "coqa": coqa,
    "quac": quac,
    "drop": drop,
    "record": record,
    "wsc": wsc,
    "none": lambda answer, item: {},
}
