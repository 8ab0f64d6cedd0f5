"""Our tasks as tasks of lm-eval, for any of its models: the same prompts, few-shot examples, normalizations and figures.

lm-eval's YAML cannot express a draw of examples for each question, log-probabilities per token or relative to the answer
context, and figures of each dataset's own scorer; this class does. `gpt3 eval --lm-eval-tasks` writes the files that name it.
This module imports lm-eval (>= 0.4.13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Any

from gpt3.errors import InputError, require
from gpt3.evaluation.items import Result, Source
from gpt3.evaluation.protocol import Questions, encode_pair, texts_of, with_room
from gpt3.evaluation.results import figures
from gpt3.evaluation.scores import BEAM_WIDTH, LENGTH_PENALTY, judge_choice, judge_text, judge_word
from gpt3.evaluation.tasks import TASKS

require("lm_eval", extra="eval", purpose="our tasks in lm-eval")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.metrics import mean  # noqa: E402
from lm_eval.api.task import Task as HarnessTask  # noqa: E402
from lm_eval.config.task import TaskConfig  # noqa: E402
from lm_eval.filters import build_filter_ensemble  # noqa: E402


class TextEncoder:
    """A tokenizer alone, for the lengths of answers; tokens that it adds before a text change none."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode_word(self, word: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = self.tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    encode_prompt = encode_word

    def line_ends(self) -> list[int]:
        """Ids of tokens that contain a line's end, and of the EOS token."""
        texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        ends = [token for token, text in enumerate(texts) if "\n" in text]
        return sorted({*ends, self.tokenizer.eos_token_id} - {None})


@lru_cache(maxsize=4)
def load_encoder(name: str, **where: Any) -> TextEncoder:
    """The tokenizer of a folder or of the hub; read once for all tasks."""
    from transformers import AutoTokenizer

    import gpt3.model  # noqa: F401 - registers our model type with transformers, so that it needs no code from the folder

    return TextEncoder(AutoTokenizer.from_pretrained(name, **where))


class PaperTask(HarnessTask):
    """One of our tasks.

    Args:
        config: its YAML file: `gpt3_task`, our name of it; and `metadata`, where lm-eval puts its --model_args and --metadata.
            These are read:

            data_dir    folder of the task's files; without it the rows come from the hub
            format      of generated tasks: paper or released
            tokenizer   the model's: a folder, an id or an object; default: `pretrained`. It counts the tokens of answers
            beams       of written answers; 1: greedy, which all models can do. Default: 4, with the length penalty 0.6

    The number of few-shot examples is --num_fewshot; their draw, and generated questions, depend on the fourth of lm-eval's
    --seed.

    Raises:
        InputError: instead of a figure, what is missing: rows, examples, or the tokenizer.
    """

    VERSION = 1

    def __init__(self, config: Mapping[str, Any]) -> None:  # not the parent's, which loads a dataset
        self.ours = TASKS[config["gpt3_task"]]
        self.metadata = dict(config.get("metadata") or {})
        self.seed = 0
        self._asked: Questions | None = None
        self._lengths: dict[str, Any] = {}
        self._together = {
            *self.ours.whole,
            "ppl",
        }  # figures of all answers together, whose errors lm-eval does not know
        writes = self.ours.kind in ("greedy", "text")
        self.OUTPUT_TYPE = "generate_until" if writes else "loglikelihood"
        generation: dict[str, Any] = {"until": ["\n"], "do_sample": False}
        beams = int(self.metadata.get("beams", BEAM_WIDTH))
        if self.ours.kind == "text" and beams > 1:
            generation |= {"num_beams": beams, "length_penalty": LENGTH_PENALTY, "early_stopping": "never"}
        self._config = TaskConfig(
            task=config["task"],
            task_alias=config.get("task_alias"),
            num_fewshot=config.get("num_fewshot"),
            output_type=self.OUTPUT_TYPE,
            generation_kwargs=generation | (config.get("generation_kwargs") or {}) if writes else None,
            metadata=self.metadata | {"version": self.VERSION},
        )
        self._filters = [build_filter_ensemble("none", [["take_first", None]])]
        self._instances = self._training_docs = self._fewshot_docs = self.fewshot_rnd = None

    @property
    def asked(self) -> Questions:
        """The questions, for the number of few-shot examples and the seed that lm-eval has set by now."""
        shots = self.config.num_fewshot or 0
        if self._asked is None or (self._asked.shots, self._asked.seed) != (shots, self.seed):
            source = Source(self.metadata.get("data_dir"), self.metadata.get("format", "paper"), self.seed)
            self._asked = Questions(self.ours, self.ours.split(source), shots, self.seed)
            if self.OUTPUT_TYPE == "generate_until":
                encoder = self.encoder
                task = with_room(encoder, self.ours, self._asked.split) if encoder else self.ours
                self._lengths = {"max_gen_toks": task.max_new_tokens}
                if encoder and "num_beams" in self.config.generation_kwargs:  # so that each beam ends by itself
                    self._lengths["eos_token_id"] = encoder.line_ends()
        return self._asked

    @property
    def encoder(self) -> TextEncoder | None:
        """The model's tokenizer, if it was named."""
        named = self.metadata.get("tokenizer") or self.metadata.get("pretrained")
        if not isinstance(named, str):
            return None if named is None else TextEncoder(named)
        where = {key: self.metadata[key] for key in ("revision", "trust_remote_code") if key in self.metadata}
        return load_encoder(named, **where)

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """Called by lm-eval before anything else."""
        self.seed = seed or 0

    def has_training_docs(self) -> bool:
        """False: few-shot examples are drawn here."""
        return False

    def has_validation_docs(self) -> bool:
        """False: the scored questions are called test, whatever their split."""
        return False

    def has_test_docs(self) -> bool:
        """True: all questions."""
        return True

    def test_docs(self) -> list[dict[str, Any]]:
        """The questions without the text before them."""
        docs = []
        for number, item in enumerate(self.asked.items):
            asked = {"number": number, "id": item.id, "context": item.contexts or item.context}
            docs.append(asked | {"completions": item.completions, "gold": item.gold})
        return docs

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        """The question."""
        return self.asked.items[doc["number"]].context

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        """The right answer."""
        return doc["completions"][doc["gold"]]

    def fewshot_context(self, doc: dict[str, Any], num_fewshot: int = 0, *_: Any, **wishes: Any) -> str:
        """All the model reads before the answer.

        Raises:
            InputError: a chat template or a system instruction, which the paper's prompts do not have.
        """
        if wishes.get("apply_chat_template") or wishes.get("system_instruction"):
            raise InputError(
                f"{self.config.task} is a text to continue. Leave out --apply_chat_template and --system_instruction."
            )
        return self.asked[doc["number"]].context

    def construct_requests(self, doc: dict[str, Any], ctx: str, **more: Any) -> list[Instance]:
        """A text to generate, or log-probabilities of the options."""
        arguments: list[tuple] = [*texts_of(self.ours, self.asked[doc["number"]])]
        if self.OUTPUT_TYPE == "generate_until":
            arguments = [(ctx.rstrip(" "), self._lengths | self.config.generation_kwargs)]
        return [Instance(self.OUTPUT_TYPE, doc, x, n, metadata=more["metadata"]) for n, x in enumerate(arguments)]

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """The figures of one question; for figures of all questions together, the question's whole result."""
        result = self.judge(doc, results)
        return {name: asdict(result) if name in self._together else result.metrics[name] for name in self.ours.metrics}

    def judge(self, doc: dict[str, Any], results: Sequence[Any]) -> Result:
        """One question's outcome, as in `gpt3 eval`."""
        question = self.asked[doc["number"]]
        if self.OUTPUT_TYPE == "generate_until":
            return judge_text(self.ours, question, results[0])
        if self.ours.kind == "word":
            return judge_word(question, *results[0])
        lengths = [1] * len(results)  # which only the rule "token" uses
        if self.ours.normalization == "token":
            if self.encoder is None:
                raise InputError(
                    f"{self.config.task} compares log-probabilities per token, and the tokenizer is not known. "
                    'Use --metadata \'{"tokenizer": "its folder or id"}\'.'
                )
            lengths = [len(encode_pair(self.encoder, *pair)[1]) for pair in texts_of(self.ours, question)]
        return judge_choice(self.ours, question, [total for total, _ in results], lengths)

    def aggregation(self) -> dict[str, Callable[[Sequence[Any]], float]]:
        """Means, whose errors lm-eval knows; and our own figures of all questions."""
        return {name: partial(self._figure, name) if name in self._together else mean for name in self.ours.metrics}

    def higher_is_better(self) -> dict[str, bool]:
        """Of all figures but perplexity."""
        return {name: name != "ppl" for name in self.ours.metrics}

    def _figure(self, name: str, results: Sequence[dict[str, Any]]) -> float:
        return figures(self.ours, [Result(**result) for result in results])[name].value
