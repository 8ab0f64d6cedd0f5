"""``gpt3 data``: a look at data before training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gpt3.options import Options, option
from gpt3.tables import counted, labelled, wrapped


@dataclass(frozen=True)
class DataOptions(Options):
    """Look at data before training: documents, tokens, lengths, fields, some documents, and warnings. Large data is sampled."""

    data: list[str] = option(["wiki"], known="gpt3.corpus.sources:known_sources", common=True)
    """Sources: {known}."""
    tokenizer: str = option("gpt2", common=True)
    """gpt2, or a tokenizer folder."""
    context: int = option(1024, least=1, common=True)
    """Tokens of a training sequence, to show where documents are cut."""
    show: int = option(5, least=0, common=True)
    """Documents to show."""
    json: bool = option(False, common=True)
    """Print JSON instead of text."""


def run(options: DataOptions) -> None:
    """Print what the data is.

    Raises:
        InputError: see gpt3.corpus.
    """
    from gpt3.corpus.preview import preview
    from gpt3.tokenizer.loading import load_tokenizer

    tokenizer = load_tokenizer(options.tokenizer)
    found = preview(options.data, tokenizer, options.tokenizer, options.context, options.show)
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else text(found, options))


def text(found: dict[str, Any], options: DataOptions) -> str:
    """`preview`'s findings for a terminal."""
    about = "" if found["whole"] else "about "
    amount = {
        key: "unknown" if found[key] is None else f"{about}{found[key]:,}" for key in ("documents", "bytes", "tokens")
    }
    lengths = found["lengths"]
    spans = (
        ("least", "shortest"),
        ("quarter", "1/4"),
        ("median", "1/2"),
        ("three_quarters", "3/4"),
        ("most", "longest"),
    )
    rows = [
        ("documents", amount["documents"]),
        ("text", f"{amount['bytes']} bytes"),
        ("tokens", f"{amount['tokens']} with {options.tokenizer}, {found['bytes_per_token']:.2f} bytes per token"),
        (
            "lengths",
            ", ".join(f"{name} {lengths[key]:,}" for key, name in spans) + f", mean {lengths['mean']:,.0f} tokens",
        ),
        ("context", f"{found['longer_than_context']:.1%} of the documents are longer than {options.context:,} tokens"),
        ("duplicates", f"{found['duplicates']:.1%} of the documents"),
    ]
    for name, fields in zip(found["sources"], found["fields"], strict=True):
        if fields:
            rows.append(("fields", f"{name}: " + ", ".join(f"{field} ({kind})" for field, kind in fields.items())))
    lines = labelled(rows)
    if not found["whole"]:
        lines += wrapped("(a sample of large data: beginnings of parts that lie evenly over it)")
    for number, document in enumerate(found["shown"], 1):
        more = "…" if document["characters"] > len(document["text"]) else ""
        lines += ["", f"document {number}: {counted(document['tokens'], 'token')}"]
        lines += wrapped(f"  {_line(document['text'])}{more}", 2)
        if document["cut"]:
            before, after = map(_line, document["cut"])
            lines += wrapped(f"  cut after {counted(options.context, 'token')}: …{before} | {after}…", 2)
    return "\n".join([*lines, "", *(line for text in found["warnings"] or ["No warnings."] for line in wrapped(text))])


def _line(text: str) -> str:
    """A text in one line."""
    return " ".join(text.split())
