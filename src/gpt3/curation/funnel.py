"""What became of a corpus, as report.json and report.html: documents and bytes by source and reason, scores, clusters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.curation.documents import Documents
from gpt3.durable import write_text
from gpt3.report.page import fill_page

REPORT, PAGE = "report.json", "report.html"


def write_funnel(
    out: Path,
    documents: Documents,
    shards: Mapping[str, Any],
    stages: Mapping[str, Any],
    samples: Mapping[str, list[str]],
) -> None:
    """Write both files.

    Args:
        out: the corpus folder.
        documents: all, with the reasons for dropping them.
        shards: by source, what its shards hold.
        stages: by stage, what it says, ready for JSON.
        samples: texts by reason.
    """
    sources, reasons = [source.name for source in documents.sources], documents.reasons
    owners, sizes, codes = documents.owners, documents.sizes, documents.codes
    cells = owners * len(reasons) + codes
    shape = (len(sources), len(reasons))
    counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    text_bytes = np.bincount(cells, weights=sizes.astype(np.float64), minlength=shape[0] * shape[1]).reshape(shape)
    report: dict[str, Any] = {
        "sources": {
            name: {
                "documents": int(counts[number].sum()),
                "text_bytes": int(text_bytes[number].sum()),
                "kept_documents": int(counts[number, 0]),
                "kept_text_bytes": int(text_bytes[number, 0]),
                "dropped": {
                    reason: {"documents": int(counts[number, code]), "text_bytes": int(text_bytes[number, code])}
                    for code, reason in enumerate(reasons)
                    if code and counts[number, code]
                },
                "skipped": {reason: asdict(found) for reason, found in documents.skipped[number].items()},
                "shards": shards[name],
            }
            for number, name in enumerate(sources)
        },
        **stages,
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
