"""Filters as options of `gpt3 prepare` and `gpt3 train`: the short form of a recipe with one source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpt3.corpus.documents import Source
from gpt3.corpus.options import PrepareOptions
from gpt3.options import option

FILTERS = ("none", "gopher", "c4", "fineweb")
"""Names of `gpt3.curation.heuristics.SETS`, known without NumPy."""


@dataclass(frozen=True)
class CuratedOptions(PrepareOptions):
    """Turn documents into token shards, ready to train on."""

    filter: str = option("none", choices=FILTERS, group="Filters")
    """Leave out documents that break the rules of these filters for web pages (docs/corpus.md)."""
    near_duplicates: bool = option(False)
    """Leave out near-duplicates of earlier documents, in all of --data (docs/corpus.md)."""


def curated(sources: Sequence[Source], filter: str, near_duplicates: bool, workers: int) -> list[Source]:
    """The sources without what the options leave out: first by the filter, then near-duplicates.

    Raises:
        InputError: a source cannot be read, or is a shard folder, which is tokens already.
    """
    from gpt3.corpus.prepare import cache_folder
    from gpt3.corpus.shards import ShardFolder
    from gpt3.errors import InputError

    used = [name for name, on in (("--filter", filter != "none"), ("--near-duplicates", near_duplicates)) if on]
    if not used:
        return list(sources)
    if shards := [source.name for source in sources if isinstance(source, ShardFolder)]:
        raise InputError(f"{used[0]}: {shards[0]} is a shard folder. Filter when you prepare the shards.")
    if filter != "none":
        from gpt3.curation.selected import ByRules, SelectedSource

        sources = [SelectedSource(source.name, source, ByRules(filter)) for source in sources]
    if near_duplicates:
        from gpt3.curation.deduplication import without_near_duplicates
        from gpt3.curation.near_duplicates import NearDuplicateOptions

        sources = without_near_duplicates(sources, cache_folder() / "curated", NearDuplicateOptions(), workers)
    return list(sources)
