"""Preparations that nobody gave a folder: kept in the user's cache, made once, found again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt3.corpus import manifest
from gpt3.corpus.preparation import Preparation
from gpt3.corpus.prepare import PrepareOptions

VARIABLE = "GPT3_CACHE"


def cache_folder() -> Path:
    """``$GPT3_CACHE``, else gpt3's place among the caches of this system. Not made by asking for it."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpt3"


def prepare_cached(
    data: str | Sequence[str],
    tokenizer: str | Path = "gpt2",
    *,
    validation_fraction: float = PrepareOptions.validation_fraction,
    fold: str | None = None,
    shard_tokens: int = PrepareOptions.shard_tokens,
    workers: int | None = None,
) -> Path:
    """The shard folder of `data`, from the cache where it is there, else prepared into it.

    The folder's name holds a hash of all its bytes depend on: the sources' fingerprints, the tokenizer's, the options and
    the format's version. Two processes that ask at once do the work once: the second waits.

    Args:
        data, tokenizer, validation_fraction, fold, shard_tokens, workers: as in `gpt3.corpus.prepare.PrepareOptions`.

    Raises:
        InputError: as `gpt3.corpus.prepare.prepare`.
    """
    preparation = Preparation(
        PrepareOptions(
            data=[data] if isinstance(data, str) else [str(spec) for spec in data],
            tokenizer=str(tokenizer),
            validation_fraction=validation_fraction,
            fold=fold,
            shard_tokens=shard_tokens,
            workers=workers,
        ),
        elsewhere=f"a folder on another disk for the cache ({VARIABLE})",
    )
    return preparation.run(cache_folder() / "shards" / folder_name(preparation))


def folder_name(preparation: Preparation) -> str:
    """A readable beginning and the hash, e.g. ``wiki-1f0c…``."""
    identity = {**preparation.identity, "version": manifest.VERSION}
    identity["sources"] = [source["fingerprint"] for source in identity["sources"]]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    words = re.findall(r"[A-Za-z0-9]+", Path(preparation.sources[0].name).stem) or ["data"]
    return f"{'-'.join(words)[:40]}-{key[:16]}"
