"""Our tasks as tasks of lm-eval, for any of its models: the same prompts, demonstrations, normalisations and figures.

What lm-eval cannot say in YAML is said here: a draw of demonstrations for each question, log-probabilities per token or against
those after the answer context, and figures of each data set's own scorer. The files that name this class are in lm_eval_tasks.
This module needs lm-eval (>= 0.4.13) at import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

from gpt3.errors import InputError, require
from gpt3.evaluation.items import Source, Split
from gpt3.evaluation.protocol import Questions, encode_pair, texts_of, with_room
from gpt3.evaluation.results import figures
from gpt3.evaluation.scores import BEAM_WIDTH, LENGTH_PENALTY, Result, judge_choice, judge_text, judge_word
from gpt3.evaluation.tasks import TASKS
from gpt3.evaluation.whole import WHOLE_FIGURES

require("lm_eval", extra="eval", purpose="our tasks in lm-eval")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.metrics import mean  # noqa: E402
from lm_eval.api.task import Task as HarnessTask  # noqa: E402
from lm_eval.config.task import TaskConfig  # noqa: E402
from lm_eval.filters import build_filter_ensemble  # noqa: E402


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer alone, for the lengths of answers; what it puts before a text changes none."""

    tokenizer: Any

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of a text's beginning."""
        return self.encode_word(prompt)

    def encode_word(self, word: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = self.tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    @cached_property
    def line_ends(self) -> list[int]:
        """Ids of tokens with a line's end in them, and the end of a text."""
        size = len(self.tokenizer)
        texts = self.tokenizer.batch_decode([[token] for token in range(size)])
        ends = [token for token, text in enumerate(texts) if "\n" in text]
        return sorted({*ends, self.tokenizer.eos_token_id} - {None})


@lru_cache(maxsize=4)
def load_encoder(name: str, **where: Any) -> TextEncoder:
    """The tokenizer of a folder or of the hub; read once for all tasks."""
    from transformers import AutoTokenizer

    import gpt3.model  # noqa: F401 - known to transformers then, so that our folders are not asked for code of their own

    return TextEncoder(AutoTokenizer.from_pretrained(name, **where))


class PaperTask(HarnessTask):
    """One of our tasks.

    Args:
        config: what its YAML file says: `gpt3_task`, our name of it; and `metadata`, in which lm-eval puts its --model_args and
            --metadata. These are read:

            data_dir    folder of the task's files; without it the rows come from the hub
            format      of generated tasks: paper or released
            tokenizer   the model's: a folder, an id or an object; default: `pretrained`. It counts the tokens of answers
            beams       of written answers; 1: greedy, which all models can. Default: 4, with the length penalty 0.6

    The number of demonstrations is --num_fewshot; their draw, and generated questions, depend on the fourth of lm-eval's --seed.

    Raises:
        InputError: in place of a figure, what is missing: rows, examples, or the tokenizer.
    """

    VERSION = 1

    def __init__(self, config: Mapping[str, Any]) -> None:  # not the parent's, which loads a dataset
        self.ours = TASKS[config["gpt3_task"]]
        self.metadata = dict(config.get("metadata") or {})
        self.seed = 0
        self._asked: Questions | None = None
        self._lengths: dict[str, Any] = {}
        writes = self.ours.kind in ("greedy", "text")
        self.OUTPUT_TYPE = "generate_until" if writes else "loglikelihood"
        self._config = TaskConfig(
            task=config["task"],
            task_alias=config.get("task_alias"),
            num_fewshot=config.get("num_fewshot"),
            output_type=self.OUTPUT_TYPE,
            generation_kwargs=(self._generation() | (config.get("generation_kwargs") or {})) if writes else None,
            metadata=self.metadata | {"version": self.VERSION},
        )
        self._filters = [build_filter_ensemble("none", [["take_first", None]])]
        self._instances = self._training_docs = self._fewshot_docs = self.fewshot_rnd = None

    @property
    def asked(self) -> Questions:
        """The questions, for the number of demonstrations and the seed that lm-eval has set by now."""
        shots = self.config.num_fewshot or 0
        if self._asked is None or (self._asked.shots, self._asked.seed) != (shots, self.seed):
            source = Source(self.metadata.get("data_dir"), self.metadata.get("format", "paper"), self.seed)
            self._asked = Questions(self.ours, self.ours.split(source), shots, self.seed)
            self._lengths = self._answer_lengths(self._asked.split)
        return self._asked

    @property
    def encoder(self) -> TextEncoder | None:
        """The model's tokenizer, if it was named."""
        named = self.metadata.get("tokenizer") or self.metadata.get("pretrained")
        if named is None or not isinstance(named, str):
            return named if named is None else TextEncoder(named)
        return load_encoder(
            named, **{key: self.metadata[key] for key in ("revision", "trust_remote_code") if key in self.metadata}
        )

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """lm-eval's, before it asks for anything."""
        self.seed = seed or 0

    def has_training_docs(self) -> bool:
        """Demonstrations are not lm-eval's business."""
        return False

    def has_validation_docs(self) -> bool:
        """What is scored is called test here, whatever its split."""
        return False

    def has_test_docs(self) -> bool:
        """All questions."""
        return True

    def test_docs(self) -> list[dict[str, Any]]:
        """The questions without what stands before them."""
        return [
            {
                "number": number,
                "id": item.id,
                "context": item.contexts or item.context,
                "completions": item.completions,
                "gold": item.gold,
            }
            for number, item in enumerate(self.asked.items)
        ]

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        """What is asked."""
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
                f"{self.config.task} is a text to be continued; leave out --apply_chat_template and --system_instruction"
            )
        return self.asked[doc["number"]].context

    def construct_requests(self, doc: dict[str, Any], ctx: str, **more: Any) -> list[Instance]:
        """A text to write, or log-probabilities of the options."""
        if self.OUTPUT_TYPE == "generate_until":
            arguments: list[tuple] = [(ctx.rstrip(" "), self._lengths | self.config.generation_kwargs)]
        else:
            arguments = [*texts_of(self.ours, self.asked[doc["number"]])]
        return [
            Instance(self.OUTPUT_TYPE, doc, pair, place, metadata=more["metadata"])
            for place, pair in enumerate(arguments)
        ]

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """The figures of one question; for figures of all questions together, the question's whole result."""
        result = self.judge(doc, results)
        together = self._together
        return {name: result.as_dict() if name in together else result.metrics[name] for name in self.ours.metrics}

    def judge(self, doc: dict[str, Any], results: Sequence[Any]) -> Result:
        """One question's outcome, as `gpt3 eval` has it."""
        question = self.asked[doc["number"]]
        if self.OUTPUT_TYPE == "generate_until":
            return judge_text(self.ours, question, results[0])
        if self.ours.kind == "word":
            return judge_word(question, *results[0])
        lengths = [1] * len(results)  # which no rule but "token" looks at
        if self.ours.normalization == "token":
            if self.encoder is None:
                raise InputError(
                    f"{self.config.task} compares log-probabilities per token, and the tokenizer is not known; "
                    'give --metadata \'{"tokenizer": "its folder or id"}\''
                )
            lengths = [len(encode_pair(self.encoder, *pair)[1]) for pair in texts_of(self.ours, question)]
        return judge_choice(self.ours, question, [total for total, _ in results], lengths)

    def aggregation(self) -> dict[str, Callable[[Sequence[Any]], float]]:
        """Means, whose errors lm-eval knows; and our own figures of all questions."""
        together = self._together
        return {name: partial(self._figure, name) if name in together else mean for name in self.ours.metrics}

    def higher_is_better(self) -> dict[str, bool]:
        """Of all figures but perplexity."""
        return {name: name != "ppl" for name in self.ours.metrics}

    @property
    def _together(self) -> tuple[str, ...]:
        return ("ppl",) if self.ours.whole is None else WHOLE_FIGURES[self.ours.whole]

    def _figure(self, name: str, results: Sequence[dict[str, Any]]) -> float:
        return figures(self.ours, [Result(**result) for result in results])[name].value

    def _generation(self) -> dict[str, Any]:
        """What is known before the rows are."""
        found: dict[str, Any] = {"until": ["\n"], "do_sample": False}
        beams = int(self.metadata.get("beams", BEAM_WIDTH))
        if self.ours.kind == "text" and beams > 1:
            found |= {"num_beams": beams, "length_penalty": LENGTH_PENALTY, "early_stopping": "never"}
        return found

    def _answer_lengths(self, split: Split) -> dict[str, Any]:
        """How long an answer may be, and, for a beam search of transformers, which tokens end it: each beam for itself."""
        if self.OUTPUT_TYPE != "generate_until":
            return {}
        encoder = self.encoder
        task = self.ours if encoder is None else with_room(encoder, self.ours, split)
        found: dict[str, Any] = {"max_gen_toks": task.max_new_tokens}
        if encoder is not None and "num_beams" in self.config.generation_kwargs:
            found["eos_token_id"] = encoder.line_ends
        return found
