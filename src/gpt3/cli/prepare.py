"""``gpt3 prepare``: sources to a shard folder, then what it holds."""

from __future__ import annotations

from gpt3.curation.options import CuratedOptions
from gpt3.tables import counted


def run(options: CuratedOptions) -> None:
    """Prepare, then print the counts.

    Raises:
        InputError: see `gpt3.corpus.prepare.prepare`.
    """
    from gpt3.corpus.prepare import prepare
    from gpt3.corpus.shards import open_shards
    from gpt3.corpus.sources import open_sources
    from gpt3.curation.options import curated

    sources = open_sources(options.data, tokenizer=options.tokenizer)
    sources = curated(sources, options.filter, options.near_duplicates, options.worker_count())
    folder = open_shards(prepare(options, sources))
    for name, split in folder.manifest.splits.items():
        print(
            f"{name}: {counted(split.documents, 'document')}, {split.text_bytes:,} bytes of text, {split.tokens:,} tokens"
        )
    print(f"shards: {folder.path}\nnext: gpt3 train --data {folder.path}")
