"""What held-out documents say of a model: loss with its 95% interval, perplexity, bits per byte; samples; when to stop."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from gpt3.corpus.shards import TokenSplit
from gpt3.device import empty_cache, ran_out_of_memory
from gpt3.errors import InputError, RunError
from gpt3.inference.language_model import LanguageModel
from gpt3.inference.options import SamplingOptions
from gpt3.model import GPT3ForCausalLM
from gpt3.model.packed_documents import cumulative_lengths, document_positions
from gpt3.progress import say
from gpt3.training.data import TrainingData
from gpt3.training.distributed import ALONE, Compute, World
from gpt3.training.options import TrainOptions
from gpt3.training.plan import Plan
from gpt3.training.trainer import IGNORED, Trainer

LEAST_TOKENS = 8192
"""A validation is not shortened below this: its loss would be too uncertain."""
LEVEL = 0.95
Z = 1.959963984540054
"""The normal distribution's two-sided 95% quantile."""
SAMPLES = 3
PROMPT_TOKENS = 12
NEW_TOKENS = 120
TEMPERATURE = 0.7
TOP_K = 50


@dataclass(frozen=True)
class Score:
    """Means over the predicted tokens of held-out text: a document counts by its tokens."""

    loss: float
    """Nats per token, end-of-text tokens included."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """All nats over ln 2 and over the UTF-8 bytes of the text, which makes tokenizers comparable. End-of-text tokens cost
    bits and count no bytes."""
    loss_low: float | None
    """Lower end of the loss's 95% confidence interval, see `loss_interval`; None with fewer than two documents."""
    loss_high: float | None
    """Upper end."""
    tokens: int
    """Tokens predicted."""
    documents: int
    """Documents with predicted tokens."""
    whole: bool
    """True: the whole split was read, and its bytes are counted. False: a part of it was, and its bytes are taken as its
    tokens times the whole split's mean bytes per token."""


@torch.no_grad()
def validate(
    model: GPT3ForCausalLM,
    split: TokenSplit,
    compute: Compute,
    context: int,
    micro_batch: int,
    most_tokens: int | None = None,
    world: World = ALONE,
    mask_documents: bool = False,
) -> Score:
    """Score `model` on `split`: windows of `context` tokens that follow one another, each token predicted at most once.

    Window i is scored by rank i modulo the world's size. Every rank runs the same number of forward passes of the same
    shape, filled with windows that do not count, so that sharded models (FSDP) never wait for one another; the sums
    are taken in float64, so that the score is the same for any number of ranks.

    Args:
        model: on `compute.device`; a wrapper such as FSDP's or DDP's will do.
        split: at least two tokens. The first is not predicted: nothing comes before it.
        micro_batch: sequences per forward pass, at most.
        most_tokens: read about this many tokens, in windows spread evenly over the split; None reads all of it.
        world: the processes that share the work; by default this one alone. All call this function, all get the score.
        mask_documents: keep packed documents from seeing one another, for models trained so.

    Raises:
        InputError: the split holds no two tokens.
    """
    if len(split) < 2:
        raise InputError(
            f"split {split.name!r} holds no held-out text; use a larger --validation-fraction, or more data"
        )
    ends = split.document_ends()
    windows = -(-(len(split) - 1) // context)
    chosen = windows if most_tokens is None else min(windows, max(1, -(-most_tokens // context)))
    numbers = np.arange(chosen) * windows // chosen  # (chosen,) rising
    rows = min(micro_batch, chosen)
    mine = numbers[world.data_rank :: world.data_size]

    sums = np.zeros((2, len(ends)))  # of every document: nats, predicted tokens
    was_training = model.training
    model.eval()
    try:
        first = 0
        while first < -(-chosen // world.data_size):
            inputs, targets, documents = read_windows(split, mine[first : first + rows] * context, ends, rows, context)
            here = {"input_ids": torch.from_numpy(inputs), "shift_labels": torch.from_numpy(targets)}
            if mask_documents:
                here["position_ids"] = document_positions(here["input_ids"], split.end_of_text)
                here["cu_seq_lens_q"] = cumulative_lengths(here["position_ids"])
            batch = {name: tensor.to(compute.device) for name, tensor in here.items()}
            try:
                nats = nats_of(model, batch, compute)
            except RuntimeError as error:  # as in training; of several ranks none can begin anew alone
                if world.size > 1 or rows == 1 or not ran_out_of_memory(error):
                    raise
                nats = None
            if nats is None:
                rows //= 2
                empty_cache(compute.device)
                say(f"Out of memory while validating: continuing with {rows} of {2 * rows} sequences at a time.")
                continue
            first += rows
            counted = targets.ravel() != IGNORED
            owner = documents.ravel()[counted]
            np.add.at(sums[0], owner, nats[counted])
            np.add.at(sums[1], owner, 1)
    finally:
        model.train(was_training)
    if world.size > 1:
        sums = world.all_reduce(torch.from_numpy(sums)).numpy() / world.tensor
    return score_of(sums[0], sums[1], split.text_bytes, len(split) - 1)


def nats_of(model: GPT3ForCausalLM, batch: dict[str, torch.Tensor], compute: Compute) -> np.ndarray:
    """What each target of a batch costs in nats: (rows × context,) float64."""
    with compute.autocast():
        output = model(**batch, skip_logits=True, use_cache=False, loss_reduction="none")
    return output.loss.float().cpu().numpy().astype(np.float64)


def read_windows(
    split: TokenSplit, starts: np.ndarray, ends: np.ndarray, rows: int, context: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The windows that begin at `starts`, at most `rows` of them.

    Returns:
        Inputs and targets, targets IGNORED where nothing is predicted, and the document of each target, (rows, context) int64.
    """
    inputs, targets = (np.full((rows, context), fill, dtype=np.int64) for fill in (split.end_of_text, IGNORED))
    places = np.zeros((rows, context), dtype=np.int64)
    for row, start in enumerate(starts.tolist()):
        tokens = split.read(start, min(start + context + 1, len(split)))
        inputs[row, : len(tokens)] = tokens[:context]
        targets[row, : len(tokens) - 1] = tokens[1:]
        places[row, : len(tokens) - 1] = np.arange(start + 1, start + len(tokens))
    return inputs, targets, np.searchsorted(ends, places, side="right")


def score_of(nats: np.ndarray, tokens: np.ndarray, text_bytes: int, predictable: int) -> Score:
    """The score of documents of which `tokens` tokens, (documents,), cost `nats`, (documents,), in a split of `text_bytes`.

    Args:
        predictable: all tokens of the split that can be predicted.
    """
    total = int(tokens.sum())
    loss = float(nats.sum()) / total
    low, high = loss_interval(nats, tokens)
    read_bytes = text_bytes if total == predictable else text_bytes * total / predictable
    return Score(
        loss=loss, perplexity=math.exp(min(loss, 700.0)), bits_per_byte=float(nats.sum()) / math.log(2) / read_bytes,
        tokens=total, documents=int((tokens > 0).sum()), loss_low=low, loss_high=high, whole=total == predictable,
    )  # fmt: skip


def loss_interval(nats: np.ndarray, tokens: np.ndarray) -> tuple[float | None, float | None]:
    """The 95% confidence interval of the loss for documents like these.

    Documents are what is sampled; tokens of one document go together. The loss R = Σ nats / Σ tokens is a ratio of two
    sums over documents, whose variance by linearisation is D / (D - 1) · Σ (nats - R tokens)² / (Σ tokens)², the
    cluster-robust one (Cochran, Sampling Techniques, 1977, ch. 6.4); the quantile is Student's with D - 1 degrees of freedom.

    Args:
        nats, tokens: (documents,) float64; documents without tokens are left out.

    Returns:
        Low (at least 0) and high; None for both with fewer than two documents.
    """
    seen = tokens > 0
    nats, tokens = nats[seen], tokens[seen]
    count = len(tokens)
    if count < 2:
        return None, None
    loss = nats.sum() / tokens.sum()
    error = math.sqrt(count / (count - 1) * float(((nats - loss * tokens) ** 2).sum())) / float(tokens.sum())
    margin = student_quantile(count - 1) * error
    return max(0.0, float(loss) - margin), float(loss) + margin


def student_quantile(freedom: int) -> float:
    """Student's t, two-sided 95%: exact for 1 and 2 degrees of freedom, else within 0.2% (Abramowitz and Stegun, 26.7.5)."""
    if freedom == 1:
        return math.tan(math.pi * LEVEL / 2)
    if freedom == 2:
        return LEVEL * math.sqrt(2 / (1 - LEVEL**2))
    z, n = Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def records(step: int, tokens: int, scores: Mapping[str, Score]) -> dict[str, Any]:
    """One metrics record of all sets: ``val/loss``, … of the unnamed one (``""``), ``val/NAME/loss``, … of the others.

    Args:
        step, tokens: done so far.
    """
    record: dict[str, Any] = {"step": step, "tokens": tokens}
    for name, score in scores.items():
        prefix = f"val/{name}/" if name else "val/"
        numbers = dataclasses.asdict(score).items()
        record |= {prefix + key: value for key, value in numbers if key != "whole" and value is not None}
    return record


def draw_samples(
    model: GPT3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], seed: int
) -> list[tuple[str, str]]:
    """Each prompt with what the model writes after it."""
    options = SamplingOptions(max_new_tokens=NEW_TOKENS, temperature=TEMPERATURE, top_k=TOP_K, seed=seed)
    samples = []
    for prompt in prompts:
        try:
            text = LanguageModel(model, tokenizer).complete(prompt, options)[0].text
        except (InputError, RunError) as error:  # weights that are no longer numbers: the loop reports them itself
            text = f"[no sample: {error}]"
        samples.append((prompt, text))
    return samples


def first_lines(split: TokenSplit, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The first line of a few documents, or the whole words in its first 12 tokens; each once. One empty prompt for none."""
    prompts = []
    start = 0
    for end in split.document_ends()[:SAMPLES]:
        ids = split.read(start, min(start + PROMPT_TOKENS + 1, int(end) - 1))
        text, more = (str(tokenizer.decode(part)) for part in (ids[:PROMPT_TOKENS], ids))
        line = re.match(r"\n*[^\n]*\n*", text)
        prompt = line[0] if line else ""
        if prompt == text and re.match(r"\S", more[len(text) :]):  # the cut is within a word
            prompt = prompt.rpartition(" ")[0] or prompt
        prompts.append(prompt)
        start = int(end)
    return list(dict.fromkeys(prompts)) or [""]


@dataclass
class EarlyStopping:
    """Says when validations have stopped getting better, and which was the best. Its state is ready for JSON.

    Compare only scores of the same tokens: leave out the last validation where it reads more than the others.
    """

    patience: int | None = None
    """Stop after this many validations in a row without improvement; None never stops."""
    best_loss: float | None = None
    best_step: int | None = None
    waited: int = 0
    """Validations since the last improvement."""

    @property
    def stop(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.waited >= self.patience

    def update(self, step: int, loss: float) -> None:
        """Take a validation in. A loss that is not a number is never the best."""
        if loss < (math.inf if self.best_loss is None else self.best_loss):
            self.best_loss, self.best_step, self.waited = loss, step, 0
        else:
            self.waited += 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best_loss": self.best_loss, "best_step": self.best_step, "waited": self.waited}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        self.best_loss, self.best_step, self.waited = (state[name] for name in ("best_loss", "best_step", "waited"))


class Validation:
    """Scores a run's validation sets, on all ranks together.

    Attributes:
        early: which validation was the best, and whether to stop.
        scores: the latest, by the set's name; the run's own held-out documents are ``""``.

    Raises:
        InputError: ``--early-stop`` uses a set that does not exist.
    """

    def __init__(self, options: TrainOptions, data: TrainingData) -> None:
        self.options, self.data, self.sets = options, data, data.validation
        self.early = EarlyStopping(options.early_stop)
        self.scores: dict[str, Score] = {}
        self.watched = options.early_stop_on or ""
        if (options.early_stop is not None or self.watched) and self.watched not in self.sets:
            what = f"--early-stop {options.early_stop}: the run holds out no text of its own"
            if self.watched:
                what = f"--early-stop-on {self.watched}: no such validation set"
            raise InputError(f"{what}; named sets here: {', '.join(filter(None, self.sets)) or 'none'}")

    def most_tokens(self, plan: Plan) -> int:
        """Tokens of each set that a validation during training reads: ``--validation-tokens``, bounded by ``--validation-share``.

        A token costs a third of what it costs in training, where the backward pass is twice the forward pass. The bound
        depends on the interval and the whole batch alone, so that all validations of a run read the same tokens.
        """
        share, most = self.options.validation_share, self.options.validation_tokens
        if share is None:
            return most
        between = plan.validate_every * plan.batch_tokens
        return min(most, max(LEAST_TOKENS, round(3 * share * between / max(1, len(self.sets)))))

    def score(self, trainer: Trainer, final: bool = False) -> dict[str, Any] | None:
        """Score every set with the trainer's weights: the record of metrics.jsonl, None where there is no set.

        Args:
            final: read all; else about `most_tokens` of each set.
        """
        options, plan, step = self.options, trainer.plan, trainer.step
        most = self.most_tokens(plan)
        with trainer.averaged():
            self.scores = {
                name: validate(
                    trainer.model, split, trainer.compute, plan.context, plan.micro_batch, None if final else most,
                    trainer.world, options.mask_documents,
                )
                for name, split in self.sets.items()
            }  # fmt: skip
        if not self.scores:
            return None
        record = records(step, plan.tokens_after(step), self.scores)
        if self.data.specs[0].name:  # of a mixture
            for row in self.data.sources(trainer.mixture, plan.sequences(step - 1).stop):
                record |= {f"{key}/{row['name']}": row[key] for key in ("share", "epochs") if row[key] is not None}
        watched = self.scores.get(self.watched)
        if watched is not None and (not final or watched.tokens <= most):
            self.early.update(step, watched.loss)  # else it would compare unlike
        return record
