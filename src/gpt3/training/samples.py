"""Samples during training: samples.jsonl, and the last ones shown."""

from __future__ import annotations

import sys

from transformers import PreTrainedTokenizerFast

from gpt3.corpus.shards import TokenSplit
from gpt3.errors import InputError, RunError
from gpt3.inference.language_model import LanguageModel
from gpt3.inference.options import SamplingOptions
from gpt3.model import GPT3ForCausalLM
from gpt3.progress import speak_utf8
from gpt3.training.options import TrainOptions
from gpt3.training.tracking import Tracker

SAMPLES = 3
NEW_TOKENS = 120
TEMPERATURE = 0.7
TOP_K = 50


class SampleWriter:
    """Draws samples of a run's model, and records them.

    Args:
        held_out: where prompts come from when `options` name none: the first lines of its first documents.
    """

    def __init__(
        self,
        model: GPT3ForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        held_out: TokenSplit,
        options: TrainOptions,
    ) -> None:
        self.model, self.tokenizer, self.seed = model, tokenizer, options.seed
        self.prompts = options.sample_prompt or held_out_prompts(held_out, tokenizer)
        self.latest: list[tuple[str, str]] = []
        """Prompts and texts of the last `draw`."""
        self.file: Tracker | None = None
        """samples.jsonl, on rank 0."""

    def draw(self, step: int | None = None) -> None:
        """Draw one sample per prompt; record it where a `step` is given."""
        self.latest = [(prompt, self._continue(prompt)) for prompt in self.prompts]
        if self.file is not None and step is not None:
            for prompt, text in self.latest:
                self.file.log({"step": step, "prompt": prompt, "text": text})

    def show(self) -> None:
        """Print the latest samples on standard output."""
        speak_utf8(sys.stdout)
        for prompt, text in self.latest:
            print(f"\n--- {prompt.strip()!r} continued:\n{prompt}{text}")

    def _continue(self, prompt: str) -> str:
        was_training = self.model.training
        self.model.eval()
        try:
            options = SamplingOptions(max_new_tokens=NEW_TOKENS, temperature=TEMPERATURE, top_k=TOP_K, seed=self.seed)
            return LanguageModel(self.model, self.tokenizer).complete(prompt, options)[0].text
        except (InputError, RunError) as error:  # weights that are no longer numbers: the loop reports them itself
            return f"[no sample: {error}]"
        finally:
            self.model.train(was_training)


def held_out_prompts(split: TokenSplit, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The first line, at most 12 tokens of it, of a few held-out documents; one empty prompt where there are none."""
    prompts = []
    start = 0
    for end in split.document_ends()[:SAMPLES]:
        text = str(tokenizer.decode(split.read(start, min(start + 12, int(end) - 1))))
        line, newline, _ = text.partition("\n\n")
        prompts.append(line + newline)
        start = int(end)
    return prompts or [""]
