"""Our own model folders, planned as the others are, so that `gpt3 info` can say whether one is whole."""

from __future__ import annotations

import re
from typing import Any

import torch

from gpt3.model_folder.families.blueprint import HEAD, Blueprint

NOTHING = re.compile(r"(?!)")


def blueprint(raw: dict[str, Any]) -> Blueprint:
    """The plan for a config.json of `model_type` gpt3: every tensor as it is."""
    from gpt3.model import GPT3Config, GPT3ForCausalLM

    config = GPT3Config.from_dict(raw)
    plan = Blueprint(family="gpt3", config=config, prefix="transformer.", passed_over=NOTHING)
    with torch.device("meta"):
        parameters = dict(GPT3ForCausalLM(config).named_parameters())
    for name, tensor in parameters.items():
        if name != HEAD:
            plain = name.removeprefix(plan.prefix)
            plan.take(plain, plain, tuple(tensor.shape))
    return plan
