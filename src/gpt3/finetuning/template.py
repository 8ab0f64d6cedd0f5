"""The chat template that a model learns: chosen, given to tokenizer and model, and checked before training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from gpt3.errors import InputError
from gpt3.model.vocabulary import resize_vocabulary
from gpt3.tokenizer.chat_template import GENERATION, ChatTemplate, Message

FOLDER = Path(__file__).parent / "templates"
NAMED = ("harmony", "chatml")
SPECIAL = re.compile(r"<\|[^|<>\s]+\|>")
PROBE = (
    Message("system", "Be brief."),
    Message("user", "One?"),
    Message("assistant", "First answer."),
    Message("user", "Two?"),
    Message("assistant", "Second answer."),
)


def read_template(choice: str | None, tokenizer: PreTrainedTokenizerFast) -> str:
    """The Jinja source of ``harmony``, ``chatml`` or a file; None: the tokenizer's own, else harmony's.

    Raises:
        InputError: no such template, a file that is not UTF-8, or one without generation marks.
    """
    own = tokenizer.chat_template
    if choice is None and isinstance(own, str) and GENERATION.search(own):
        return own
    name = choice or "harmony"
    path = FOLDER / f"{name}.jinja" if name in NAMED else Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"--chat-template {name}: no such template. Give {', '.join(NAMED)} or a Jinja file.")
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--chat-template {name} is not UTF-8 at byte {error.start}. Convert it to UTF-8.") from None
    if not GENERATION.search(source):
        raise InputError(
            f"--chat-template {name} has no generation marks. Put {{% generation %}} … {{% endgeneration %}} around what the "
            "assistant says, its end token included."
        )
    return source.rstrip("\n") if name in NAMED else source


def prepare_tokenizer(tokenizer: PreTrainedTokenizerFast, source: str) -> list[str]:
    """Give a tokenizer a chat template and the special tokens it spells; returns those that are new."""
    known = tokenizer.get_vocab()
    new = [token for token in dict.fromkeys(SPECIAL.findall(source)) if token not in known]
    if new:
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in new], special_tokens=True)
    tokenizer.chat_template = source
    tokenizer.split_special_tokens = False  # apply_chat_template of transformers goes through the tokenizer's default
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # labels say what counts, never the id
    return new


def add_tokens(model: Any, tokenizer: Any, new: list[str]) -> list[int]:
    """Give the model rows for the tokenizer's new tokens, each the mean of all rows it had; returns their ids.

    Padding rows of the vocabulary go: trainers take every row for a token.
    """
    had = getattr(model.config, "real_vocab_size", None) or model.get_input_embeddings().num_embeddings
    ids = [tokenizer.convert_tokens_to_ids(token) for token in new]
    resize_vocabulary(model, max([had, *(number + 1 for number in ids)]), ids)
    return ids


def end_of_answers(template: ChatTemplate) -> int:
    """The id that ends an answer, once the template has shown on a probe what training and chat rest on.

    - A conversation's beginning is the beginning of its tokens (else history cannot be kept, nor cut at turns).
    - The prompt for an answer is followed by just the trained tokens of that answer (else it trains what is never asked).
    - Every answer ends in one and the same special token, which is trained (else the model never learns to stop).

    Raises:
        InputError: naming the property that does not hold.
    """
    if not template.marked:
        raise InputError("the chat template has no generation marks. Put {% generation %} around the answers.")
    whole, _ = template.encode(PROBE)
    ends = set()
    for count in (3, 5):
        ids, trained = template.encode(PROBE[:count])
        prompt = template.prompt(PROBE[: count - 1])
        if whole[: len(ids)] != ids:
            raise InputError(
                "the chat template is not prefix-preserving: a longer conversation begins otherwise. Choose another."
            )
        stop = len(ids) - trained[::-1].index(True) if any(trained) else 0
        if ids[: len(prompt)] != prompt or not all(trained[len(prompt) : stop]) or stop <= len(prompt):
            raise InputError(
                "the chat template's generation prompt is not what precedes the trained answer. Choose another template."
            )
        ends.add(ids[stop - 1])
    known = template.tokenizer.added_tokens_decoder
    end = ends.pop()
    if ends or end not in known or not known[end].special:
        raise InputError(
            "the chat template trains no end token. Put one special token, such as <|end|>, last between the generation marks."
        )
    return end


def set_ends(model: Any, tokenizer: Any, end: int) -> None:
    """Let generation end at the end of an answer, as at the end of a document."""
    model.generation_config.eos_token_id = list(
        dict.fromkeys(id_ for id_ in (end, tokenizer.eos_token_id) if id_ is not None)
    )
    model.generation_config.pad_token_id = tokenizer.pad_token_id
