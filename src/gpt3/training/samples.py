"""Samples as the model learns: samples.jsonl, and the last ones shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerFast

from gpt3.corpus.shards import TokenSplit
from gpt3.inference import generate
from gpt3.training.options import TrainOptions

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM

SAMPLES = 3
NEW_TOKENS = 120
TEMPERATURE = 0.7
TOP_K = 50


class SampleWriter:
    """Writes samples of a run.

    Args:
        path: samples.jsonl.
        held_out: where prompts come from when `options` name none: the first lines of its first documents.
    """

    def __init__(
        self,
        path: Path,
        model: GPT3ForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        held_out: TokenSplit,
        options: TrainOptions,
    ) -> None:
        self.path, self.model, self.tokenizer, self.seed = path, model, tokenizer, options.seed
        self.prompts = options.sample_prompt or held_out_prompts(held_out, tokenizer)

    def write(self, step: int, show: bool = False) -> None:
        """Append one sample a prompt; with `show` print them on standard output."""
        was_training = self.model.training
        self.model.eval()
        try:
            for prompt in self.prompts:
                sample = generate(
                    self.model, self.tokenizer, prompt,
                    max_new_tokens=NEW_TOKENS, temperature=TEMPERATURE, top_k=TOP_K, seed=self.seed,
                )[0]  # fmt: skip
                record = {"step": step, "prompt": prompt, "text": sample.text, "finish_reason": sample.finish_reason}
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                if show:
                    print(f"\n--- {prompt.strip()!r} continued:\n{prompt}{sample.text}")
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
