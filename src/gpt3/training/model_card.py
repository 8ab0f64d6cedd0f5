"""The README.md of a model folder, made from its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt3.training.options import TrainOptions
from gpt3.training.plan import Plan

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM
    from gpt3.training.run_data import RunData
    from gpt3.training.validation import Score


def model_card(
    name: str,
    options: TrainOptions,
    plan: Plan,
    model: GPT3ForCausalLM,
    data: RunData,
    score: Score | None,
    seconds: float,
) -> str:
    """Markdown with Hugging Face's front matter: what the model is, what it was trained on and how, how to run it."""
    config = model.config
    banded = sum(kind == "sliding_attention" for kind in config.layer_types or ())
    sources = ", ".join(str(row["name"]) for row in data.sources(plan.total_sequences, plan.context))
    result = (
        f"| held-out loss (nats a token) | {score.loss:.4f} |\n| perplexity | {score.perplexity:.2f} |\n"
        f"| bits per byte | {score.bits_per_byte:.4f} |\n"
        if score
        else "| held-out loss | not measured: no held-out documents |\n"
    )
    ramp = f", growing from {plan.stages[0].sequences * plan.context:,}" if plan.ramp_tokens else ""
    betas = f"AdamW {options.beta1:g}/{plan.beta2:g}"
    optimizer = {"adamw": betas, "muon": f"Muon {options.muon_momentum:g} and {betas}"}.get(options.optimizer, "Lion")
    optimizer += f", decay {options.weight_decay:g}, clip {options.clip:g}"
    if options.ema is not None:
        optimizer += f"; these weights are their moving average of decay {options.ema:g}"
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [gpt3]
---
# {name}

A GPT-3 (Brown et al. 2020, arXiv 2005.14165) of {model.num_parameters():,} parameters, trained with the gpt3 package.

| | |
|---|---|
| layers, width, heads | {config.num_hidden_layers}, {config.hidden_size}, {config.num_attention_heads} |
| attention | {config.num_hidden_layers - banded} dense and {banded} banded layers, window {config.sliding_window} |
| context, vocabulary | {config.max_position_embeddings}, {config.vocab_size:,} |
| data | {sources} |
| tokens seen | {plan.tokens:,} in {plan.steps:,} steps of {plan.batch_tokens:,}{ramp} |
| optimizer | {optimizer} |
| learning rate | {plan.lr:g} after {plan.warmup_tokens:,} tokens, cosine to {plan.min_lr:g} |
| computed in | {options.dtype}, seed {options.seed}, {seconds / 60:.1f} minutes |
{result}
## Run it

```sh
gpt3 generate --model PATH_OF_THIS_FOLDER "The history of"
```

```python
import gpt3
model = gpt3.load("PATH_OF_THIS_FOLDER")
print(model.complete("The history of", max_new_tokens=50)[0].text)
```

Without the package: `transformers.AutoModelForCausalLM.from_pretrained(PATH, trust_remote_code=True)`.

It continues text. It was not tuned to follow instructions, and what it says of the world is often wrong.
"""
