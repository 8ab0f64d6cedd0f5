"""lm-eval: its tasks on our engine (`HarnessModel`), and our tasks on any of its models (`PaperTask`).

    from lm_eval import simple_evaluate
    simple_evaluate(HarnessModel(gpt3.load("runs/demo")), tasks=["hellaswag"], num_fewshot=0)

Scores of a `HarnessModel` are those of lm-eval's own `hf` model in float32, up to rounding; requests with the same context share
its computation, which lm-eval's do not. This module imports lm-eval (>= 0.4.13).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch

from gpt3.errors import InputError, require
from gpt3.evaluation import Result, Source, protocol
from gpt3.evaluation.results import figures
from gpt3.evaluation.tasks import TASKS
from gpt3.inference.continuations import Request, score_requests
from gpt3.inference.options import SamplingOptions
from gpt3.inference.scoring import first_token, score_tokens

require("lm_eval", extra="eval", purpose="running lm-eval's tasks, or ours in lm-eval,")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.metrics import mean  # noqa: E402
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.api.task import Task as HarnessTask  # noqa: E402
from lm_eval.config.task import TaskConfig  # noqa: E402
from lm_eval.models.utils import normalize_gen_kwargs  # noqa: E402
from lm_eval.utils import get_rolling_token_windows  # noqa: E402

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

MAX_NEW_TOKENS = 256
"""lm-eval's own default, for tasks that do not say."""
TOP_K = 50
"""What transformers' `generate` samples among where nothing else is said."""
PENALTIES = {"repetition_penalty": "repetition_penalty", "no_repeat_ngram_size": "no_repeat_ngram"}
CUTS = {"top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "typical_p": "typical_p"}
"""transformers' names of options, and ours."""


class HarnessModel(LM):
    """A `LanguageModel` as a model of lm-eval: its three methods on our engine, so that any of its task definitions runs there.

    Args:
        model: from `gpt3.load`.
        batch: texts generated in parallel; no score depends on it.

    Attributes:
        truncated: requests so far whose context lost its oldest tokens.
    """

    def __init__(self, model: LanguageModel, batch: int = 8) -> None:
        super().__init__()
        self.model, self.batch = model, batch
        self.truncated = 0

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability of each (context, continuation), and whether greedy decoding would produce it."""
        by_context: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for place, request in enumerate(requests):
            before, answer = protocol.encode_pair(self.model, *request.args)
            by_context.setdefault(tuple(before), []).append((place, answer))
        asked = [Request(before, [answer for _, answer in answers]) for before, answers in by_context.items()]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        scored = score_requests(self.model.engine, asked, batch=self.batch)
        for answers, scores in zip(by_context.values(), scored, strict=True):
            for (place, _), score in zip(answers, scores, strict=True):
                found[place] = (score.total, score.is_greedy)
                self.truncated += score.dropped > 0
        return found

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each whole text, which begins a document. All of its windows but the first end with the tokens that
        no earlier one scored, so that the last one is full, too."""
        engine, start = self.model.engine, first_token(self.model.tokenizer)
        totals = []
        for request in requests:
            ids = self.model.encode_prompt(request.args[0]) if request.args[0] else []
            found = get_rolling_token_windows(ids, start, engine.context, 1)
            scores = (score_tokens(engine, [*read, new[-1]], stride=engine.context)[-len(new) :] for read, new in found)
            totals.append(float(sum(score.total for score in scores)))
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The greedy, sampled or (with `num_beams`) searched continuation of each context, up to one of its `until` texts."""
        return [self._continue(*request.args) for request in requests]

    def _continue(self, context: str, wishes: dict[str, Any]) -> str:
        wishes = normalize_gen_kwargs(wishes, MAX_NEW_TOKENS)
        tokens, prompt = wishes["max_gen_toks"], self.model.encode_prompt(context)
        room = self.model.engine.context - tokens
        if room < 1:
            raise InputError(
                f"max_gen_toks {tokens} leaves no space for a prompt in the model's {self.model.engine.context} positions. "
                "Use fewer: --gen_kwargs max_gen_toks=N"
            )
        self.truncated += len(prompt) > room
        options = SamplingOptions(
            max_new_tokens=tokens,
            stop=[text for text in (*(wishes["until"] or ()), self.model.tokenizer.eos_token) if text],
            **self._choosing(wishes),
        )
        beams, penalty = int(wishes.get("num_beams", 1)), float(wishes.get("length_penalty", 1))
        [(text, _)] = protocol.write(self.model, [prompt[-room:]], options, beams, penalty, self.batch)
        return text

    @staticmethod
    def _choosing(wishes: Mapping[str, Any]) -> dict[str, Any]:
        """How `wishes` choose the next token, as our sampling options. Each sample has a seed from torch's generator, which
        lm-eval seeds; what is not said is as in `generate` of transformers."""
        temperature = float(wishes.get("temperature", 0)) if wishes["do_sample"] else 0.0
        names = PENALTIES | (CUTS if temperature else {})
        found = {ours: wishes[theirs] for theirs, ours in names.items() if wishes.get(theirs) is not None}
        if not temperature:
            return found | {"temperature": 0.0, "seed": 0}
        return {"top_k": TOP_K} | found | {"temperature": temperature, "seed": int(torch.randint(2**31 - 1, ()))}


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
    """One of our tasks as a task of lm-eval: the same prompts, few-shot examples, normalizations and figures.

    lm-eval's YAML cannot express a draw of examples for each question, log-probabilities per token or relative to the answer
    context, and figures of each dataset's own scorer. `gpt3 eval --lm-eval-tasks` writes the files that name this class.

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

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.ours = TASKS[config["gpt3_task"]]
        self.metadata = dict(config.get("metadata") or {})
        self.seed = 0
        # figures of all answers together, whose errors lm-eval does not know
        self._together = {*self.ours.whole, "ppl"}
        writes = self.ours.kind in protocol.WRITTEN
        self.OUTPUT_TYPE = "generate_until" if writes else "loglikelihood"
        generation: dict[str, Any] = {"until": ["\n"], "do_sample": False}
        beams = int(self.metadata.get("beams", protocol.BEAM_WIDTH))
        if self.ours.kind == "text" and beams > 1:
            penalty = protocol.LENGTH_PENALTY
            generation |= {"num_beams": beams, "length_penalty": penalty, "early_stopping": "never"}
        self._config = TaskConfig(
            task=config["task"],
            task_alias=config.get("task_alias"),
            num_fewshot=config.get("num_fewshot"),
            output_type=self.OUTPUT_TYPE,
            generation_kwargs=generation | (config.get("generation_kwargs") or {}) if writes else None,
            metadata=self.metadata | {"version": self.VERSION},
        )

    def download(self, *_: Any, **__: Any) -> None:
        """Nothing: `asked` reads the rows."""

    @cached_property
    def asked(self) -> protocol.Questions:
        """The questions, for the number of few-shot examples and the seed that lm-eval has set by now."""
        source = Source(self.metadata.get("data_dir"), self.metadata.get("format", "paper"), self.seed)
        return protocol.Questions(self.ours, self.ours.split(source), self.config.num_fewshot or 0, self.seed)

    @cached_property
    def lengths(self) -> dict[str, Any]:
        """Further arguments of a generation: its tokens, and what ends a beam, so that each ends with EOS."""
        if self.encoder is None:
            return {"max_gen_toks": self.ours.max_new_tokens}
        roomy = protocol.with_room(self.encoder, self.ours, self.asked.split)
        ends = {"eos_token_id": self.encoder.line_ends()} if "num_beams" in self.config.generation_kwargs else {}
        return {"max_gen_toks": roomy.max_new_tokens} | ends

    @property
    def encoder(self) -> TextEncoder | None:
        """The model's tokenizer, if it was named."""
        named = self.metadata.get("tokenizer") or self.metadata.get("pretrained")
        if not isinstance(named, str):
            return None if named is None else TextEncoder(named)
        where = {key: self.metadata[key] for key in ("revision", "trust_remote_code") if key in self.metadata}
        return load_encoder(named, **where)

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """Called by lm-eval before it asks, after it has set the number of few-shot examples."""
        self.seed = seed or 0
        for name in ("asked", "lengths"):
            self.__dict__.pop(name, None)

    def has_training_docs(self) -> bool:
        """False: few-shot examples are drawn here, and the scored questions are called test, whatever their split."""
        return False

    has_validation_docs = has_training_docs

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
        arguments: list[tuple] = [*protocol.texts_of(self.ours, self.asked[doc["number"]])]
        if self.OUTPUT_TYPE == "generate_until":
            arguments = [(ctx.rstrip(" "), self.lengths | self.config.generation_kwargs)]
        return [Instance(self.OUTPUT_TYPE, doc, x, n, metadata=more["metadata"]) for n, x in enumerate(arguments)]

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """The figures of one question; for figures of all questions together, the question's whole result."""
        result = self.judge(self.asked[doc["number"]], results)
        return {name: asdict(result) if name in self._together else result.metrics[name] for name in self.ours.metrics}

    def judge(self, question: protocol.Question, results: Sequence[Any]) -> Result:
        """One question's outcome, as in `gpt3 eval`."""
        if self.OUTPUT_TYPE == "generate_until":
            return protocol.judge_text(self.ours, question, results[0])
        if self.ours.kind == "word":
            return protocol.judge_word(question, *results[0])
        lengths = [1] * len(results)  # which only the rule "token" uses
        if self.ours.normalization == "token":
            if self.encoder is None:
                raise InputError(
                    f"{self.config.task} compares log-probabilities per token, and the tokenizer is not known. "
                    'Use --metadata \'{"tokenizer": "its folder or id"}\'.'
                )
            texts = protocol.texts_of(self.ours, question)
            lengths = [len(protocol.encode_pair(self.encoder, *pair)[1]) for pair in texts]
        return protocol.judge_choice(self.ours, question, [total for total, _ in results], lengths)

    def aggregation(self) -> dict[str, Callable[[Sequence[Any]], float]]:
        """Means, whose errors lm-eval knows; and our own figures of all questions."""
        return {name: partial(self._figure, name) if name in self._together else mean for name in self.ours.metrics}

    def higher_is_better(self) -> dict[str, bool]:
        """Of all figures but perplexity."""
        return {name: name != "ppl" for name in self.ours.metrics}

    def _figure(self, name: str, results: Sequence[dict[str, Any]]) -> float:
        found = figures(self.ours, [Result(**result) for result in results])
        return found[name].value if name in found else math.nan
