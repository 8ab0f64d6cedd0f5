"""How near a written answer is to an accepted one: SQuAD's exact match and F1 (Rajpurkar et al. 2016).

Before comparing, both lose upper case, punctuation, the articles a, an, the, and white space but single spaces.
"""

from __future__ import annotations

import re
import string
from collections import Counter

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """A text as it is compared."""
    words = re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION))
    return " ".join(words.split())


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
