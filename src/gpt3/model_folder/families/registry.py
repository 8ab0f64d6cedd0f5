"""Which families are read, and where the blueprint of each is. Nothing heavy is imported before one is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError, one_line

if TYPE_CHECKING:
    from gpt3.model_folder.families.blueprint import Blueprint

FAMILIES = {
    "gpt2": "gpt2",
    "custom_gpt2": "gpt3dev",
    "gpt3dev": "gpt3dev",
    "gpt_neo": "gpt_neo",
    "opt": "opt",
}
"""`model_type` of config.json to the module of this package that knows it."""

OURS = "gpt3"
READ = "GPT3-dev, GPT-2, Cerebras-GPT, GPT-Neo and OPT"


def blueprint_of(raw: dict[str, Any], place: str, *, allow_ours: bool = False) -> Blueprint:
    """What the weights of a model with this config.json must be, and what becomes of them.

    Args:
        raw: the content of config.json.
        place: what to call the model in messages.
        allow_ours: take a model of this package, too.

    Raises:
        InputError: a family that is not read, or a model of a family that ours cannot be; with the reason.
    """
    from huggingface_hub.errors import StrictDataclassError

    model_type = raw.get("model_type")
    if model_type == OURS and not allow_ours:
        raise InputError(f"{place} is a gpt3 model already; use it as it is: --model {place}")
    if model_type not in FAMILIES and model_type != OURS:
        raise InputError(f"{place}: config.json has model_type {model_type!r}, which is not read; read are {READ}")
    if raw.get("quantization_config"):
        raise InputError(f"{place}: its weights are quantised (quantization_config); take the plain checkpoint")
    module = import_module(f"gpt3.model_folder.families.{FAMILIES.get(model_type, 'gpt3_folder')}")
    try:
        blueprint: Blueprint = module.blueprint(raw)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    except (StrictDataclassError, TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise InputError(
            f"{place}: config.json makes no {model_type} model ({one_line(error, 300)}); save it again"
        ) from error
    return blueprint
