"""A `LanguageModel` as a model of lm-eval, so that any of lm-eval's task definitions runs on our engine.

    from lm_eval import simple_evaluate
    simple_evaluate(HarnessModel(gpt3.load("runs/demo")), tasks=["hellaswag"], num_fewshot=0)

This module imports lm-eval (>= 0.4.13). Scores are those of lm-eval's own `hf` model in float32, up to rounding; requests
with the same context share its computation, which lm-eval's do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpt3.errors import require
from gpt3.evaluation.protocol import encode_pair
from gpt3.evaluation.scores import search
from gpt3.inference.continuations import Request, score_requests
from gpt3.inference.generation import GenerationRequest
from gpt3.inference.options import SamplingOptions
from gpt3.inference.scoring import first_token, score_tokens

require("lm_eval", extra="eval", purpose="running lm-eval's tasks")
from lm_eval.api.model import LM  # noqa: E402

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from gpt3.inference.language_model import LanguageModel

MAX_NEW_TOKENS = 256
"""lm-eval's own default, for tasks that do not say."""


class HarnessModel(LM):
    """lm-eval's three methods on our engine.

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
            before, answer = encode_pair(self.model, *request.args)
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
        """Log-probability of each whole text, which begins a document, in windows that do not overlap."""
        engine, start = self.model.engine, first_token(self.model.tokenizer)
        texts = [self.model.encode_word(request.args[0]) for request in requests]
        return [score_tokens(engine, text, stride=engine.context, start=start).total for text in texts]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The greedy, sampled or (with `num_beams`) searched continuation of each context, up to one of its `until` texts."""
        return [self._continue(*request.args) for request in requests]

    def _continue(self, context: str, wishes: dict[str, Any]) -> str:
        until = wishes.get("until") or []
        stop = [until] if isinstance(until, str) else [text for text in until if text]
        tokens = int(wishes.get("max_gen_toks", MAX_NEW_TOKENS))
        ids = self.model.encode_prompt(context)
        room = max(1, self.model.engine.context - tokens + 1)
        self.truncated += len(ids) > room
        ids = ids[-room:]
        if (beams := int(wishes.get("num_beams", 1))) > 1:
            return search(self.model, ids, beams, float(wishes.get("length_penalty", 1)), tokens, stop)
        temperature = float(wishes.get("temperature", 0)) if wishes.get("do_sample") else 0
        options = SamplingOptions(temperature=temperature, max_new_tokens=tokens, stop=stop, seed=0)
        return GenerationRequest(self.model, [ids], options, self.batch).complete()[0].text
