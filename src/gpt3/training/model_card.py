"""The README.md of a model folder, made from its run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from gpt3.model import GPT3ForCausalLM
from gpt3.report.run_folder import METRICS, read_metrics
from gpt3.training.optimizers import describe
from gpt3.training.options import TrainOptions
from gpt3.training.panel import sparkline
from gpt3.training.plan import Plan
from gpt3.training.validation import Score

CURVE_COLUMNS = 60
CURVE_ROWS = 10


def model_card(
    run: Path,
    options: TrainOptions,
    plan: Plan,
    model: GPT3ForCausalLM,
    sources: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Score],
    seconds: float,
) -> str:
    """Markdown with Hugging Face's front matter: what the model is, what it was trained on and how, how to run it where.

    Args:
        run: the run folder; its metrics.jsonl has the training loss.
        sources: the training data, as data.json has it.
        scores: of each validation set by name; the run's own held-out documents are ``""``.
    """
    name, config = run.name, model.config
    banded = sum(kind == "sliding_attention" for kind in config.layer_types or ())
    positions = config.max_position_embeddings
    dense = min(config.sliding_window, positions) if banded else positions  # what GPT-2 computes right
    ramp = f", growing from {plan.stages[0].sequences * plan.context:,}" if plan.ramp_tokens else ""
    optimizer = f"{describe(options)}; decay {options.weight_decay:g}, clip {options.clip:g}"
    if options.ema is not None:
        optimizer += f"; these weights are their moving average of decay {options.ema:g}"
    template = (resources.files("gpt3.training") / "assets" / "model_card.md").read_text(encoding="utf-8")
    return template.format(
        name=name, parameters=model.num_parameters(), config=config, dense_layers=config.num_hidden_layers - banded,
        banded=banded, plan=plan, ramp=ramp, optimizer=optimizer, options=options, minutes=seconds / 60,
        evaluation=_evaluation(scores), data=_data(sources), curve=_curve(losses_of(read_metrics(run / METRICS))),
        gpt2_context=dense,
    )  # fmt: skip


def losses_of(records: Iterable[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Tokens seen and training loss, from the records of a run's metrics.jsonl; those of skipped steps have none."""
    return [
        (record["tokens"], record["loss"])
        for record in records
        if isinstance(record.get("loss"), (int, float)) and math.isfinite(record["loss"])
    ]


def _evaluation(scores: Mapping[str, Score]) -> str:
    if not scores:
        return "Not measured: there were no held-out documents.\n"
    lines = ["| text | loss, nats per token | 95% interval | perplexity | bits per byte |", "|---|---|---|---|---|"]
    for name, score in scores.items():
        known = score.loss_low is not None and score.loss_high is not None
        interval = f"{score.loss_low:.4f} to {score.loss_high:.4f}" if known else "too few documents"
        row = f"| {name or 'held-out documents'} | {score.loss:.4f} | {interval} | {score.perplexity:.2f} |"
        lines.append(f"{row} {score.bits_per_byte:.4f} |")
    return "\n".join(lines) + "\n"


def _data(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| source | share of the run | epochs | tokens | documents | licence |", "|---|---|---|---|---|---|"]
    for row in rows:
        size = f"{row['tokens']:,} | {row['documents']:,} | {row.get('licence') or 'not recorded'} |"
        lines.append(f"| {row['name']} | {row['share']:.1%} | {row['epochs']:.2f} | {size}")
    return "\n".join(lines) + "\n"


def _curve(losses: Sequence[tuple[int, float]]) -> str:
    """The training loss as characters and as a table of means, each over an equal part of the run."""
    if not losses:
        return ""
    drawn, low, high = sparkline([loss for _, loss in losses], CURVE_COLUMNS, 4)
    count = min(CURVE_ROWS, len(losses))
    parts = [losses[i * len(losses) // count : (i + 1) * len(losses) // count] for i in range(count)]
    means = [sum(loss for _, loss in part) / len(part) for part in parts]
    table = ["| tokens seen | " + " | ".join(f"{part[-1][0]:,}" for part in parts) + " |", "|---" * (count + 1) + "|"]
    table.append("| mean loss up to there | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    picture = "\n".join(drawn)
    return f"""## Training loss

From {high:.2f} to {low:.2f} nats per token:

```
{picture}
```

{chr(10).join(table)}

"""
