"""What became of a corpus, as report.json and report.html: documents and bytes by source and reason, scores, clusters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.curation.chunks import Chunk
from gpt3.curation.deduplication import Duplicates
from gpt3.durable import write_text
from gpt3.report.page import fill_page

REPORT, PAGE = "report.json", "report.html"

Array = np.ndarray[Any, Any]


def write_funnel(
    out: Path,
    sources: Sequence[str],
    chunks: Sequence[Chunk],
    reasons: Sequence[str],
    codes: Array,
    sizes: Array,
    duplicates: Duplicates | None,
    shards: Mapping[str, Any],
    extra: Mapping[str, Any],
    samples: Mapping[str, list[str]],
) -> None:
    """Write both files.

    Args:
        out: the corpus folder.
        sources: names, in order.
        chunks: whose documents the arrays are about.
        reasons: names of the codes; number 0 is kept.
        codes: (documents,) int16.
        sizes: (documents,) bytes of text.
        duplicates: of the stage, if there was one.
        shards: by source, what its shards hold.
        extra: of further stages, ready for JSON.
        samples: texts by reason.
    """
    owners = np.repeat([chunk.source for chunk in chunks], [chunk.documents for chunk in chunks]).astype(np.int64)
    cells = owners * len(reasons) + codes
    shape = (len(sources), len(reasons))
    documents = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    text_bytes = np.bincount(cells, weights=sizes.astype(np.float64), minlength=shape[0] * shape[1]).reshape(shape)
    report: dict[str, Any] = {
        "sources": {
            name: {
                "documents": int(documents[number].sum()),
                "text_bytes": int(text_bytes[number].sum()),
                "kept_documents": int(documents[number, 0]),
                "kept_text_bytes": int(text_bytes[number, 0]),
                "dropped": {
                    reason: {"documents": int(documents[number, code]), "text_bytes": int(text_bytes[number, code])}
                    for code, reason in enumerate(reasons)
                    if code and documents[number, code]
                },
                "shards": shards[name],
            }
            for number, name in enumerate(sources)
        },
        **extra,
    }
    if duplicates is not None:
        counts, edges = duplicates.sizes, [2, 3, 5, 10, 100, 1000, 10_000]
        report["near_duplicates"] = {
            "clusters": len(counts),
            "largest_cluster": int(counts.max(initial=0)),
            "cluster_sizes": {f"{edge} or more": int((counts >= edge).sum()) for edge in edges},
            "comparisons_left_out": duplicates.left_out,
        }
    write_text(out / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(out / PAGE, fill_page("gpt3.curation", "funnel", report | {"samples": samples}))


def table(report: Mapping[str, Any]) -> list[list[str]]:
    """The funnel in rows: source, documents read, kept, share of the bytes kept, tokens, what costs most."""
    rows = [["source", "documents", "kept", "bytes kept", "tokens", "dropped most by"]]
    for name, source in report["sources"].items():
        most = sorted(source["dropped"].items(), key=lambda item: -item[1]["documents"])[:2]
        share = source["kept_text_bytes"] / max(1, source["text_bytes"])
        rows.append(
            [name, f"{source['documents']:,}", f"{source['kept_documents']:,}", f"{share:.1%}",
             f"{source['shards']['tokens']:,}", ", ".join(f"{reason} {cost['documents']:,}" for reason, cost in most)]
        )  # fmt: skip
    return rows
