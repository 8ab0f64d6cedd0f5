"""Named validation sets: ``--val NAME=SOURCE``, each prepared with the run's tokenizer and scored whole."""

from __future__ import annotations

from collections.abc import Sequence

from gpt3.corpus.cache import prepare_cached
from gpt3.corpus.mixture import NAME
from gpt3.corpus.shard_source import is_shard_folder
from gpt3.corpus.shards import TOKENIZER_FOLDER, ShardFolder, TokenSplit, open_shards
from gpt3.errors import InputError


def parse_val(specs: Sequence[str]) -> dict[str, str]:
    """``["wiki=wiki", "mine=notes.txt"]`` as names and what they read.

    Raises:
        InputError: no NAME=SOURCE, a name of other characters than a-z 0-9 _ -, or the same name twice.
    """
    sources: dict[str, str] = {}
    for spec in specs:
        name, equals, source = spec.partition("=")
        if not equals or not source.strip():
            raise InputError(f"--val {spec!r} must be NAME=SOURCE, such as books=books.jsonl")
        if not NAME.fullmatch(name):
            raise InputError(f"--val {spec!r}: the name {name!r} may hold a-z, 0-9, _ and - only")
        if name in sources:
            raise InputError(f"--val {spec!r}: {name} is the name of {sources[name]} already; choose another")
        sources[name] = source.strip()
    return sources


def val_sets(specs: Sequence[str], shards: ShardFolder, workers: int | None = None) -> dict[str, TokenSplit]:
    """The named sets of ``--val``, prepared into the cache where they are not shards yet.

    A shard folder is taken as it is: its validation split, or where that is empty its train split. Of any other source every
    document is scored. Whether a document also stands in the training data is not looked at.

    Args:
        specs: NAME=SOURCE each; a source is what ``--data`` takes.
        shards: the run's; their tokenizer makes the ids.
        workers: processes that prepare.

    Raises:
        InputError: see `parse_val` and gpt3.corpus; a shard folder of another tokenizer.
    """
    sets = {}
    for name, source in parse_val(specs).items():
        if is_shard_folder(source):
            folder = open_shards(source)
            folder.check_tokenizer(shards.tokenizer(), f"of the run, for --val {name}={source},")
            split = folder.split("validation")
            sets[name] = split if len(split) > 1 else folder.split("train")
        else:
            tokenizer = shards.path / TOKENIZER_FOLDER
            sets[name] = open_shards(prepare_cached(source, tokenizer, validation_fraction=0, workers=workers)).split(
                "train"
            )
    return sets
