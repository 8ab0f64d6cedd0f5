"""The model: configuration, modelling code, banded attention, vocabulary loss.

Importing this package registers `gpt3` with transformers, so that `AutoConfig` and `AutoModelForCausalLM` load a model
folder without remote code. The files beside this one import only torch, transformers and each other: they are copied
into every saved model folder, where `trust_remote_code=True` runs them without this package.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration_gpt3 import GPT3Config
from .loss import linear_cross_entropy
from .modeling_gpt3 import GPT3ForCausalLM, GPT3Model, GPT3PreTrainedModel

AutoConfig.register("gpt3", GPT3Config, exist_ok=True)
AutoModel.register(GPT3Config, GPT3Model, exist_ok=True)
AutoModelForCausalLM.register(GPT3Config, GPT3ForCausalLM, exist_ok=True)

# The other way: saved folders carry `auto_map` and these files.
GPT3Config.register_for_auto_class()
GPT3Model.register_for_auto_class("AutoModel")
GPT3ForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["GPT3Config", "GPT3ForCausalLM", "GPT3Model", "GPT3PreTrainedModel", "linear_cross_entropy"]
