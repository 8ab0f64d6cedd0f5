"""Data sets by name: where each is, under which licence, and how its rows become conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

WIKI_QA = "wiki-qa"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class DataSet:
    """A data set of the hub."""

    repository: str
    licence: str
    """As its card tells it."""
    split: str = "train"
    keep: Callable[[Row], bool] | None = None
    """Rows that are taken; None: all."""
    assemble: Callable[[Iterable[Row]], Iterator[Row]] | None = None
    """Makes rows of a known shape out of rows of another."""

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Its rows in a shape that shapes.py knows."""
        kept = rows if self.keep is None else filter(self.keep, rows)
        return iter(kept) if self.assemble is None else self.assemble(kept)


def helpful(row: Row) -> bool:
    """HelpSteer2 rates answers from 0 to 4; those of 3 and more are taken."""
    return (row.get("helpfulness") or 0) >= 3


def best_threads(rows: Iterable[Row]) -> Iterator[Row]:
    """OpenAssistant's trees of messages as conversations: from each root, the best-ranked reply, and so on.

    Where a question in the middle has no rank, the one that came first. Deleted messages and what hangs on them are left out.
    """
    children: dict[Any, list[Row]] = {}
    for row in rows:
        if not row.get("deleted"):
            children.setdefault(row.get("parent_id"), []).append(row)
    for root in children.get(None, []):
        thread = [root]
        while replies := children.get(thread[-1]["message_id"]):
            ranks = [0 if reply.get("rank") is None else reply["rank"] for reply in replies]
            thread.append(replies[ranks.index(min(ranks))])
        if any(message["role"] == "assistant" for message in thread):
            yield {"messages": [{"role": message["role"], "content": message["text"]} for message in thread]}


CATALOGUE: dict[str, DataSet] = {
    "helpsteer": DataSet("nvidia/HelpSteer2", "CC BY 4.0", keep=helpful),
    "no_robots": DataSet("HuggingFaceH4/no_robots", "CC BY-NC 4.0"),
    "dolly": DataSet("databricks/databricks-dolly-15k", "CC BY-SA 3.0"),
    "alpaca-cleaned": DataSet("yahma/alpaca-cleaned", "CC BY 4.0"),
    "lima": DataSet("GAIR/lima", "CC BY-NC-SA"),
    "oasst2": DataSet("OpenAssistant/oasst2", "Apache 2.0", assemble=best_threads),
    "ultrachat": DataSet("HuggingFaceH4/ultrachat_200k", "MIT", split="train_sft"),
    "slimorca": DataSet("Open-Orca/SlimOrca", "MIT"),
    "openhermes": DataSet("teknium/OpenHermes-2.5", "not stated"),
    "hh-rlhf": DataSet("Anthropic/hh-rlhf", "MIT"),
}
"""Names that --data takes, besides wiki-qa, files and hf:OWNER/NAME. docs/finetune.md has a line on each."""
