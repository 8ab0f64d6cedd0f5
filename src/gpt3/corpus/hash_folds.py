"""Folds of a cross-validation: the documents' keys cut into equal ranges, so that each document is held out exactly once."""

from __future__ import annotations

import re

from gpt3.errors import InputError

KEYS = 1 << 64
"""A document's key is a 64-bit hash of its text, see `gpt3.corpus.segments.document_key`."""
FEWEST, MOST = 2, 1000


def parse_fold(text: str) -> tuple[int, int]:
    """``"2/5"`` as (2, 5): the second of five folds.

    Raises:
        InputError: it is no such pair.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match:
        fold, folds = int(match[1]), int(match[2])
        if FEWEST <= folds <= MOST and 1 <= fold <= folds:
            return fold, folds
    raise InputError(f"--fold {text!r} must be K/N, the K-th of N folds, such as 2/5 (N from {FEWEST} to {MOST})")


def fold_keys(fold: int, folds: int) -> range:
    """The keys of the documents that fold number `fold`, counted from 1, holds out; all folds together have every key once."""
    return range(KEYS * (fold - 1) // folds, KEYS * fold // folds)
