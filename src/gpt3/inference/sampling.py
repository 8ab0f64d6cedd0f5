"""From logits to the next token: one chain of small pure functions, for NumPy and torch alike.

    CHAIN, in order:  constraint ─ edits (bias, penalties, bans) ─ temperature ─ cuts (top-k, top-p, min-p, typical-p) ─ draw

The order is transformers' own. On a CPU each row goes through in NumPy, (V,); on a GPU all rows of equal options go through
together, (B, V), and the host waits for the chosen tokens alone. A sampler option is a field of SamplingOptions, a function here
and its line in CHAIN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from gpt3.inference.options import SamplingOptions
from gpt3.inference.row import Row, uniform
from gpt3.inference.selection import Floats, draw, first, largest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NEUTRAL = SamplingOptions()
NOTHING_LEFT = -1
"""In place of a token's id where every token is ruled out."""


class NotNumbersError(ArithmeticError):
    """Logits that are NaN or +inf: weights that are not finite, or an overflow.

    Attributes:
        places: the rows of the batch that have them.
    """

    def __init__(self, places: Sequence[int]) -> None:
        super().__init__(f"the logits of rows {list(places)} are not numbers")
        self.places = list(places)


@dataclass
class Token:
    """A chosen token, with its place in the model's own distribution: before bias, penalties, temperature and cuts."""

    id: int
    """NOTHING_LEFT where every token is ruled out."""
    logprob: float | None = None
    """Natural logarithm of its probability. None unless `options.logprobs` is set, or where no token is left."""
    top: list[tuple[int, float]] = field(default_factory=list)
    """The `options.logprobs` likeliest ids and their log-probabilities, likeliest first."""
    text: str = ""
    """Its bytes as text, U+FFFD where they are part of a character; set with `offset` where there is a log-probability."""
    offset: int = 0
    """Characters of the sequence's text before it."""


class Rows:
    """Rows of equal options, one in NumPy or several in torch, as the edits see them.

    Args:
        rows: one or several.
        device: where their logits are; None: NumPy.
    """

    def __init__(self, rows: Sequence[Row], device: torch.device | None = None) -> None:
        self.rows, self.device = rows, device

    def places(self, ids_of: Callable[[Row], Iterable[int]]) -> Any:
        """An index into the logits of these ids of each row."""
        ids = [np.fromiter(ids_of(row), dtype=np.int64) for row in self.rows]
        if self.device is None:
            return ids[0]
        numbers = np.repeat(np.arange(len(ids)), [len(one) for one in ids])
        return self.array(numbers), self.array(np.concatenate(ids))

    def numbers(self, numbers_of: Callable[[Row], Iterable[float]]) -> Any:
        """A float32 number for each place."""
        return self.array(np.concatenate([np.fromiter(numbers_of(row), dtype=np.float32) for row in self.rows]))

    def array(self, values: Any) -> Any:
        """NumPy values where the logits are, without waiting for the device."""
        return values if self.device is None else sent(values, self.device)


def sent(values: Any, device: torch.device) -> Tensor:
    """Numbers, in NumPy or in lists, as a tensor on a device, without waiting for it."""
    import torch

    tensor, cuda = torch.as_tensor(values), device.type == "cuda"
    return (tensor.pin_memory() if cuda else tensor).to(device, non_blocking=cuda)


def rows_at(logits: Any, places: Sequence[int]) -> Any:
    """Some rows of the logits, (B, V), without waiting for their device."""
    if isinstance(logits, np.ndarray):
        return logits[places]
    return logits[sent(np.array(places), logits.device)]


def follow_constraint(logits: Any, *constraint: Any) -> None:
    """Rule out tokens with which the text could no longer follow its row's constraint."""
    rows: Rows = constraint[-1]
    bits = rows.array(np.stack([row.constraint.mask() for row in rows.rows if row.constraint is not None]))
    if rows.device is None:
        kept = np.unpackbits(bits[0], count=len(logits), bitorder="little")
        np.copyto(logits, -math.inf, where=kept == 0)
    else:
        import torch

        kept = bits[..., None] >> torch.arange(8, dtype=torch.uint8, device=rows.device) & 1
        logits.masked_fill_(kept.flatten(1)[:, : logits.shape[1]] == 0, -math.inf)


def add_bias(logits: Any, bias: dict[int, float], rows: Rows) -> None:
    """Add to the logits of single tokens."""
    logits[rows.places(lambda row: bias)] += rows.numbers(lambda row: bias.values())


def penalize_repetition(logits: Any, penalty: float, rows: Rows) -> None:
    """Make tokens of prompt and text less likely (CTRL, Keskar et al. 2019, section 4.1; sign-aware as in transformers)."""
    places = rows.places(lambda row: row.counts)
    seen = logits[places]
    logits[places] = _xp(logits).where(seen < 0, seen * penalty, seen / penalty)


def penalize_counts(logits: Any, presence: float, frequency: float, rows: Rows) -> None:
    """OpenAI's penalties (API reference, "Frequency and presence penalties"): logit - count · frequency - (count > 0) · presence.

    Tokens of the text count, not those of the prompt ("how often sampled prior to the current position").
    """
    counts = rows.numbers(lambda row: row.text_counts.values())
    logits[rows.places(lambda row: row.text_counts)] -= counts * frequency + presence


def forbid_repeated_ngrams(logits: Any, size: int, rows: Rows) -> None:
    """Rule out tokens that would complete a run of `size` tokens that prompt and text have already (Paulus et al. 2017)."""
    logits[rows.places(lambda row: row.followers())] = -math.inf


def forbid_bad_words(logits: Any, words: list[str], rows: Rows) -> None:
    """Rule out tokens that would complete a bad word (transformers' NoBadWordsLogitsProcessor)."""
    logits[rows.places(lambda row: row.last_of_bad_words())] = -math.inf


def hold_back_ends(logits: Any, least: int, rows: Rows) -> None:
    """Rule out EOS tokens until the text has `least` tokens."""
    logits[rows.places(lambda row: row.ends if row.written < least else ())] = -math.inf


def divide_by_temperature(logits: Any, temperature: float) -> Any:
    """Below 1 the likely tokens become likelier still, above 1 less so. 0 is greedy: then the chain ends before this step."""
    return logits / temperature


def keep_top_k(logits: Any, k: int) -> Any:
    """The k largest, and those equal to the k-th (Fan et al. 2018)."""
    return largest(logits, min(k, logits.shape[-1]))


def keep_top_p(weights: Any, p: float) -> Any:
    """The nucleus: the fewest tokens, likeliest first, that have probability p or more together (Holtzman et al. 2019)."""
    return first(weights, weights, p * _total(weights))


def keep_min_p(weights: Any, p: float) -> Any:
    """Tokens at least p times as likely as the likeliest (Nguyen et al. 2024)."""
    return weights >= p


def keep_typical(weights: Any, p: float) -> Any:
    """Tokens whose surprise is nearest to the entropy, until they have probability p together (Meister et al. 2022)."""
    xp = _xp(weights)
    probabilities = weights / _total(weights)
    with np.errstate(divide="ignore"):
        surprise = xp.clip(-xp.log(probabilities), None, 1e30)  # finite, so that 0 times it is 0
    distance = xp.abs(surprise - (surprise * probabilities).sum(-1, keepdims=True))
    kept = first(distance, probabilities, p, ascending=True)
    return distance <= xp.amax(distance * kept, -1, keepdims=True)  # those as near as the last one, too


class Step(NamedTuple):
    """A line of the chain. It is left out where its options have their neutral values, which are SamplingOptions' defaults."""

    options: tuple[str, ...]
    """Fields of SamplingOptions, whose values the function is given after the array."""
    kind: Literal["edit", "scale", "rank", "cut"]
    """edit: takes logits and, last, `Rows`; changes the logits in place. scale: takes and returns logits. rank: takes logits, of
    which the order counts, and returns what is kept: a mask, or for NumPy ascending places. cut: the same with weights, which are
    probabilities times a factor; the likeliest token has 1."""
    function: Callable[..., Any]


CHAIN = (
    Step(("json_schema", "regex", "choices"), "edit", follow_constraint),
    Step(("logit_bias",), "edit", add_bias),
    Step(("repetition_penalty",), "edit", penalize_repetition),
    Step(("presence_penalty", "frequency_penalty"), "edit", penalize_counts),
    Step(("no_repeat_ngram",), "edit", forbid_repeated_ngrams),
    Step(("bad_words",), "edit", forbid_bad_words),
    Step(("min_new_tokens",), "edit", hold_back_ends),
    Step(("temperature",), "scale", divide_by_temperature),
    Step(("top_k",), "rank", keep_top_k),
    Step(("top_p",), "cut", keep_top_p),
    Step(("min_p",), "cut", keep_min_p),
    Step(("typical_p",), "cut", keep_typical),
)


def edited(logits: Any, rows: Rows) -> Any:
    """Logits of the vocabulary after the edits, a copy where there are any."""
    logits = logits[..., : rows.rows[0].vocabulary]
    steps = [(step, values) for step, values in _active(rows.rows[0].options) if step.kind == "edit"]
    if steps:
        logits = logits.clone() if rows.device is not None else logits.copy()
    for step, values in steps:
        step.function(logits, *values, rows)
    return logits


def candidates(logits: Any, options: SamplingOptions) -> tuple[Any, Any]:
    """What may be drawn after temperature (above 0) and cuts.

    Args:
        logits: (V,) float32 in NumPy or (B, V) in torch, edited; in each row at least one is finite, none NaN or +inf.

    Returns:
        ids, ascending, in NumPy where few are left, else None for all of the vocabulary; and their weights, float32 in NumPy and
        float64 in torch (so that sums do not depend on the batch). A weight of 0 is ruled out.
    """
    ids, values, weighed = None, logits, False
    for step, arguments in _active(options):
        if step.kind == "edit":
            continue
        if step.kind == "cut" and not weighed:
            values, weighed = _weights(values), True
        result = step.function(values, *arguments)
        if step.kind == "scale":
            values = result
        elif not isinstance(values, np.ndarray) or (ids is None and result.dtype == bool):
            values = values * result if weighed else _xp(values).where(result, values, -math.inf)
        else:
            ids, values = result if ids is None else ids[result], values[result]
    return ids, values if weighed else _weights(values)


def choose(logits: Any, rows: Rows) -> Any:
    """The next token of each row, whose tokens stay as they are: an id in NumPy, (B,) ids in torch; or NOTHING_LEFT."""
    logits = edited(logits, rows)
    tokens = logits.argmax(-1)
    options = rows.rows[0].options
    if rows.device is None and logits[tokens] == -math.inf:
        return NOTHING_LEFT
    if options.temperature > 0:
        ids, weights = candidates(logits, options)
        tokens = draw(weights, rows.array(np.array([uniform(row.seed, row.number, row.written) for row in rows.rows])))
        tokens = tokens if ids is None else ids[tokens]
    return int(tokens) if rows.device is None else tokens.masked_fill(logits.amax(-1) == -math.inf, NOTHING_LEFT)


def choose_together(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """The next token of rows of any options, (B,) ids on the device of the logits, (B, V); rows of equal options in one go."""
    import torch

    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(repr((row.vocabulary, _active(row.options))), []).append(place)
    whole = Rows(rows, logits.device)
    if len(groups) == 1:
        return choose(logits, whole)
    tokens = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    for group in groups.values():
        places = whole.array(np.array(group))
        tokens[places] = choose(logits[places], Rows([rows[place] for place in group], logits.device))
    return tokens


def sample(logits: Any, rows: Sequence[Row]) -> list[Token]:
    """The next token of every row, which each row takes.

    Args:
        logits: (B, V) float32, as the engine gives them.
        rows: B of them.

    Raises:
        NotNumbersError: logits are NaN or +inf. No row has taken a token then.
    """
    if not isinstance(logits, np.ndarray) and logits.is_cuda:
        import torch

        tops, ids = torch.stack([logits.amax(-1).double(), choose_together(logits, rows).double()]).tolist()
        _check(tops)
    else:
        lines = to_numpy(logits)
        _check([float(line.max()) for line in lines])
        ids = [choose(line, Rows([row])) for line, row in zip(lines, rows, strict=True)]
    tokens = []
    for place, (row, id_) in enumerate(zip(rows, map(int, ids), strict=True)):
        count = row.options.logprobs
        tokens.append(Token(id_) if count is None else _with_logprobs(id_, to_numpy(logits[place]), count))
        if id_ != NOTHING_LEFT:
            row.push(id_)
    return tokens


def to_numpy(logits: Any) -> Floats:
    """As float32 on the host; no copy where it is there already."""
    array: Floats = logits if isinstance(logits, np.ndarray) else logits.detach().float().cpu().numpy()
    return array


def _check(tops: Sequence[float]) -> None:
    if wrong := [place for place, value in enumerate(tops) if not value < math.inf]:
        raise NotNumbersError(wrong)


def _active(options: SamplingOptions) -> list[tuple[Step, list[Any]]]:
    """The steps that change something, and their values; found once for each instance of the options."""
    found: list[tuple[Step, list[Any]]] | None = vars(options).get("_active")
    if found is None:
        steps = [(step, [getattr(options, name) for name in step.options]) for step in CHAIN]
        neutral = [[getattr(NEUTRAL, name) for name in step.options] for step in CHAIN]
        found = [step for step, values in zip(steps, neutral, strict=True) if step[1] != values]
        vars(options)["_active"] = found
    return found


def _weights(logits: Any) -> Any:
    if not isinstance(logits, np.ndarray):
        return (logits - logits.amax(-1, keepdim=True)).double().exp()
    return np.exp(logits - logits.max())


def _total(weights: Any) -> Any:
    return float(weights.sum()) if isinstance(weights, np.ndarray) else weights.sum(-1, keepdim=True)


def _xp(array: Any) -> Any:
    """NumPy or torch: the library of an array."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def _with_logprobs(token: int, logits: Floats, count: int) -> Token:
    top = logits.max()
    total = float(top) + math.log(float(np.exp(logits - top).sum()))
    likeliest: list[tuple[int, float]] = []
    if count > 0:
        ids = largest(logits, min(count, len(logits)))
        order = np.argsort(-logits[ids], kind="stable")[:count]
        likeliest = [(int(id_), float(logits[id_]) - total) for id_ in ids[order]]
    return Token(token, None if token == NOTHING_LEFT else float(logits[token]) - total, likeliest)
