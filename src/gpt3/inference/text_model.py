"""An engine with its tokenizer: prompts to ids, ids to text, and the tokens that end a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt3.errors import InputError
from gpt3.inference.engine import Engine
from gpt3.inference.reference_engine import ReferenceEngine
from gpt3.inference.scoring import first_token
from gpt3.inference.streaming import TokenBytes
from gpt3.tokenizer.loading import prompt_start

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class TextModel:
    """A model, its tokenizer, and an engine that runs it.

    Args:
        model: a causal language model of transformers.
        tokenizer: its byte-level BPE.
        engine: None: the model's own forward, which follows the weights as they are trained.

    Attributes:
        ends: ids that end a text: generation_config.json's, and the tokenizer's EOS.
        vocabulary: ids from here on are never chosen.

    Raises:
        InputError: the tokenizer does not belong to the model, or is no byte-level BPE.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, engine: Engine | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.engine = ReferenceEngine(model) if engine is None else engine
        self.config = model.config
        self.token_bytes = TokenBytes(tokenizer)
        if len(tokenizer) > self.engine.vocabulary:
            raise InputError(
                f"the tokenizer has {len(tokenizer):,} ids, the model {self.engine.vocabulary:,}. Use the model's own tokenizer."
            )
        self.vocabulary = min(self.engine.vocabulary, self.token_bytes.size)
        configured = getattr(model.generation_config, "eos_token_id", None)
        ends = set(configured) if isinstance(configured, (list, tuple)) else {configured}
        self.ends = {int(token) for token in (*ends, tokenizer.eos_token_id) if token is not None}

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of a prompt; for an empty one EOS, with which documents begin.

        What the tokenizer itself puts before texts, as OPT's does with ``</s>``, comes before the prompt.

        Raises:
            InputError: the prompt holds half a surrogate pair, which is no character.
        """
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the prompt is not text at character {error.start} ({error.reason}). Use UTF-8."
            ) from None
        if ids := prompt_start(self.tokenizer) + (self.encode_word(prompt) if prompt else []):
            return self.check_ids(ids)
        return [first_token(self.tokenizer)]

    def encode_word(self, word: str) -> list[int]:
        """Token ids of a text by itself, with nothing put before it."""
        ids: list[int] = self.tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def check_ids(self, ids: Sequence[int]) -> list[int]:
        """A prompt of ids, which the model must know.

        Raises:
            InputError: none, or one outside the vocabulary.
        """
        if not ids:
            raise InputError("the prompt has no ids. Give at least one.")
        for token in ids:
            if not 0 <= token < self.vocabulary:
                raise InputError(
                    f"the prompt has the id {token}, the model and its tokenizer {self.vocabulary:,} ids from 0"
                )
        return list(ids)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that ids spell."""
        return b"".join(self.token_bytes[token] for token in ids).decode("utf-8", "replace")
