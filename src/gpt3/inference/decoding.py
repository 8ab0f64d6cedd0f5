"""The decode loop: a batch of sequences of any lengths, which join and leave between steps; and drafts of what comes next.

A step gathers what every row has not read yet (its prompt, or its newest token and a draft of the next ones) into one forward of
the engine, and samples a token for each row that has read everything. Rows with the same beginning read it once.

Positions are learned and absolute, so a full context cannot slide by one: its last half is read again as positions 0, 1, ...
and generation continues from there.

Drafts let the model check several tokens at a time (speculative decoding). A draft is right where it names the very token that
the row's sampler chooses from the model's logits, with the row's own random number. So a text is the same, token for token, with
a draft and without one, greedy or sampled; only the time differs. (Leviathan et al. 2023 accept by a coin of its own instead,
which keeps the distribution but not the text.)
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from gpt3.errors import InputError
from gpt3.inference.engine import Engine, Logits, Run
from gpt3.inference.row import NO_SLOT, Row
from gpt3.inference.sampling import NOTHING_LEFT, NotNumbersError, Rows, Token, choose, rows_at, sample, to_numpy

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

WORTH_SHARING = 16
"""Tokens that two rows must have in common for one to copy them from the other."""
DRAFT_TOKENS = 8
"""Tokens that are drafted at a time, at most."""
MODEL_TOKENS = 4
"""Tokens that a smaller model drafts at a time, at most."""
SHORT_PROMPT = 4
"""A prompt is short if it has fewer tokens than this number for each sequence being generated."""


class Draft(Protocol):
    """Guesses the next tokens. A wrong guess costs time; the sequences do not depend on it."""

    def propose(self, rows: Sequence[Row], limits: Sequence[int]) -> list[list[int]]:
        """For each row, at most `limits` ids that may follow its `tokens`."""


class Decoder:
    """Generates sequences, as many at a time as it has slots; others wait.

    Args:
        engine: of the model.
        slots: rows in parallel.
        capacity: tokens of a row at most, prompt included; at most the context.
        draft: proposes tokens that are then checked several at a time.
        prompt_tokens: of prompts that are read in one step, at most, so that other rows wait little; None: all.

    Attributes:
        rows: those that have a slot.
        waiting: those that will get one.
    """

    def __init__(
        self, engine: Engine, slots: int, capacity: int, draft: Draft | None = None, prompt_tokens: int | None = None
    ) -> None:
        self.engine, self.draft, self.prompt_tokens = engine, draft, prompt_tokens
        self.cache = engine.new_cache(slots, capacity)  # a slot keeps its tokens when its row has left
        self.rows: list[Row] = []
        self.waiting: deque[Row] = deque()
        self._free = deque(range(slots))  # the longest unused first
        self._read_prompts = False  # the last step was for prompts alone, while texts were being written

    def join(self, row: Row) -> None:
        """Generate this row, too, from the next step on or when there is a slot."""
        self.waiting.append(row)

    def leave(self, row: Row) -> None:
        """Stop generating this row. What its slot holds may still serve a row with the same beginning."""
        if row.slot == NO_SLOT:
            self.waiting.remove(row)
        else:
            self.rows.remove(row)
            self._free.append(row.slot)
            row.slot = NO_SLOT

    def step(self) -> list[tuple[Row, list[Token]]]:
        """One forward. Rows that have read all they have get a token (with a draft, one or more), in the order of `rows`.

        Raises:
            InputError, RunError: logits that are not numbers, and why.
        """
        self._seat()
        self._restart_full()
        runs, readers, drafts = [], {}, dict(zip(self.rows, self._propose(), strict=True))
        for row, count in self._to_read():
            tokens = row.unread[:count] + (drafts[row] if count == len(row.unread) else [])
            logits = 1 + len(drafts[row]) if count == len(row.unread) else 0
            readers[row] = count if row.unscored else logits  # of all it reads, where the prompt is scored
            runs.append(Run(row.slot, tokens, readers[row]))
        if not runs:
            return []
        rows_of_logits = self.engine.forward(self.cache, runs)
        starts, place = {}, 0
        for (row, logits), run in zip(readers.items(), runs, strict=True):
            if row.unscored:
                scored = row.take_scores(rows_of_logits[place : place + logits], len(run.tokens))
                place, logits = place + scored, logits - scored
            if logits:
                starts[row] = place
            place += logits
            del row.unread[: len(run.tokens)]
        chosen = self._choose(rows_of_logits, starts, drafts)
        for row, found in chosen.items():
            drafted, accepted = len(drafts[row]), len(found) - 1
            if drafted > accepted:  # take back what was drafted in vain
                self.cache.truncate(row.slot, len(self.cache.ids[row.slot]) - drafted + accepted)
            row.unread = [found[-1].id]
            row.drafted, row.accepted = row.drafted + drafted, row.accepted + accepted
        return list(chosen.items())

    def _choose(self, logits: Logits, starts: dict[Row, int], drafts: dict[Row, list[int]]) -> dict[Row, list[Token]]:
        """Each row's tokens: the first, and one more for each of its draft that has been right.

        Args:
            logits: (M, V); a row's begin at `starts`, one more than its draft has tokens.
        """
        chosen: dict[Row, list[Token]] = {row: [] for row in starts}
        going = list(starts)  # rows whose draft has been right so far
        while going:
            places = [starts[row] + len(chosen[row]) for row in going]
            whole = places == list(range(len(logits)))
            try:
                tokens = sample(logits if whole else rows_at(logits, places), going)
            except NotNumbersError:
                raise self.engine.non_finite_error() from None
            for row, token in zip(going, tokens, strict=True):
                chosen[row].append(token)
            going = [row for row in going if [one.id for one in chosen[row]] == drafts[row][: len(chosen[row])]]
        return chosen

    def _propose(self) -> list[list[int]]:
        """A draft for each row that is decoding; none for those that still read their prompt."""
        if self.draft is None:
            return [[] for _ in self.rows]
        limits = []
        for row in self.rows:
            capacity = self.cache.capacity - len(self.cache.ids[row.slot]) - len(row.unread)
            limits.append(min(DRAFT_TOKENS, max(capacity, 0)) if len(row.unread) == 1 else 0)
        return self.draft.propose(self.rows, limits)

    def _to_read(self) -> list[tuple[Row, int]]:
        """How many unread tokens each row reads in this step."""
        budget = self.prompt_tokens
        plan = []
        beginners: list[list[int]] = []  # prompts being read
        for row in self.rows:
            count = len(row.unread)
            if count > 1 and not self.cache.ids[row.slot]:  # at its beginning: does one before it begin alike?
                if not row.unscored and any(common(row.unread[:-1], other) >= WORTH_SHARING for other in beginners):
                    continue  # it takes that from the other when the other has read it
                if not row.unscored:
                    count = min([count, *self._shared_with(row)])
            if count > 1:
                beginners.append(self.cache.ids[row.slot] + row.unread)
            if count > 1 and budget is not None:
                count = min(count, self.prompt_tokens or count)
                if count > budget:  # a piece is read whole or later: where a prompt is cut does not depend on others
                    continue
                budget -= count
            plan.append((row, count))
        return plan if self.prompt_tokens is None else self._in_turn(plan)

    def _in_turn(self, plan: list[tuple[Row, int]]) -> list[tuple[Row, int]]:
        """A short prompt is read in a step of its own, then the others continue.

        In one forward with many of them its first token would wait for theirs. Long prompts take about as long either way.
        """
        reading = [(row, count) for row, count in plan if len(row.unread) > 1]
        writing = len(plan) - len(reading)
        short = 0 < sum(count for _, count in reading) < SHORT_PROMPT * writing
        self._read_prompts = short and not self._read_prompts
        return reading if self._read_prompts else plan

    def _shared_with(self, row: Row) -> list[int]:
        """Lengths of the beginnings that other rows at their beginning will take from this one."""
        others = [other for other in self.rows if other is not row and not other.unscored]
        lengths = [common(row.unread, other.unread[:-1]) for other in others if not self.cache.ids[other.slot]]
        return [length for length in lengths if length >= WORTH_SHARING]

    def _seat(self) -> None:
        """Give free slots to those who wait, and to those at their beginning what others hold of it."""
        while self.waiting and self._free:
            row = self.waiting.popleft()
            row.slot = self._free.popleft()
            source, length = (-1, 0) if row.unscored else self._longest_held(row.unread)
            if length >= WORTH_SHARING and source in self._free:  # continue in that very slot
                self._free.remove(source)
                self._free.appendleft(row.slot)
                row.slot = source
            shared = length if length >= WORTH_SHARING and source == row.slot else 0
            self.cache.truncate(row.slot, shared)
            del row.unread[:shared]
            self.rows.append(row)
        unread = {row.slot: row.unread for row in self.rows}
        for row in self.rows:
            if not self.cache.ids[row.slot] and len(row.unread) > 1 and not row.unscored:
                source, length = self._longest_held(row.unread)
                more = common(unread.get(source, []), row.unread[length:-1])  # which the other is about to read
                if length >= WORTH_SHARING and more <= 1:
                    self.cache.copy(source, row.slot)
                    self.cache.truncate(row.slot, length)
                    del row.unread[:length]

    def _longest_held(self, tokens: Sequence[int]) -> tuple[int, int]:
        """The slot that holds most of the beginning of `tokens`, all but the last of them, and how many."""
        best, longest = -1, 0
        for slot, held in enumerate(self.cache.ids):
            length = common(held, tokens[:-1])
            if length > longest and length >= self.cache.least(slot):
                best, longest = slot, length
        return best, longest

    def _restart_full(self) -> None:
        """Where the context is full, read its last half again."""
        for row in self.rows:
            if len(self.cache.ids[row.slot]) + len(row.unread) > self.cache.capacity and len(row.unread) == 1:
                self.cache.truncate(row.slot, 0)
                row.unread = row.tokens[-max(1, self.cache.capacity // 2) :]
                row.restarts += 1


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the common beginning of two lists of tokens."""
    differing = (place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differing, min(len(a), len(b)))


# ---- drafts


class PromptLookup:
    """What followed the last time that the newest tokens came, in prompt or text. No second model (Saxena 2023).

    Args:
        longest, shortest: how many of the newest tokens must have come before; the longest match counts.
    """

    def __init__(self, longest: int = 3, shortest: int = 2) -> None:
        self.sizes = range(longest, shortest - 1, -1)

    def propose(self, rows: Sequence[Row], limits: Sequence[int]) -> list[list[int]]:
        """As Draft's."""
        return [self._propose(row.tokens, limit) for row, limit in zip(rows, limits, strict=True)]

    def _propose(self, tokens: list[int], limit: int) -> list[int]:
        if limit <= 0:
            return []
        content = array("i", tokens).tobytes()
        width = len(content) // len(tokens)
        for size in self.sizes:
            if size < len(tokens):
                newest, end = content[-size * width :], len(content) - width
                while (place := content.rfind(newest, 0, end)) % width and place >= 0:
                    end = place + len(newest) - 1  # not at a token's first byte
                if place >= 0:
                    found = place // width + size
                    return tokens[found : found + limit]
        return []


class ModelDraft:
    """What a smaller model would write: with the same sampling options, and the same random numbers.

    Args:
        engine: of a model with the same token ids; texts longer than its context get no draft.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.cache = engine.new_cache(1, engine.context)

    def propose(self, rows: Sequence[Row], limits: Sequence[int]) -> list[list[int]]:
        """As Draft's."""
        drafts: list[list[int]] = [[] for _ in rows]
        lengths = [
            min(limit, MODEL_TOKENS, self.cache.capacity - len(row.tokens))
            for row, limit in zip(rows, limits, strict=True)
        ]
        going = [place for place, length in enumerate(lengths) if length > 0]
        slots = max((rows[place].slot for place in going), default=0) + 1
        if slots > self.cache.slots:
            self.cache = self.engine.new_cache(slots, self.engine.context)
        new = {place: self._unread(rows[place]) for place in going}
        while going:
            lines = to_numpy(self.engine.forward(self.cache, [Run(rows[place].slot, new[place]) for place in going]))
            for place, line in zip(going, lines, strict=True):
                token = choose(line, Rows([rows[place]]))
                new[place] = [token]
                if token != NOTHING_LEFT:
                    rows[place].push(token)
                    drafts[place].append(token)
            going = [place for place in going if new[place] != [NOTHING_LEFT] and len(drafts[place]) < lengths[place]]
        for row, draft in zip(rows, drafts, strict=True):
            row.take_back(len(draft))
        return drafts

    def _unread(self, row: Row) -> list[int]:
        """Cut the slot back to what is still so, and give what it has not read."""
        length = common(self.cache.ids[row.slot], row.tokens[:-1])
        if length < self.cache.least(row.slot):
            length = 0
        self.cache.truncate(row.slot, length)
        return row.tokens[length:]


def model_draft(model: LanguageModel, draft: LanguageModel) -> ModelDraft:
    """A draft of another model, whose tokenizer must be the same.

    Raises:
        InputError: it is not.
    """
    ours, theirs = model.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    if ours != theirs:
        differing = sum(ours.get(token) != number for token, number in theirs.items())
        raise InputError(
            f"--draft has another tokenizer ({len(theirs):,} tokens, {differing:,} of them other ids than the model's); "
            "give a draft that was trained with the model's tokenizer"
        )
    if draft.vocabulary < model.vocabulary:
        raise InputError(
            f"--draft has {draft.vocabulary:,} ids, the model {model.vocabulary:,}; give a draft that has all of them"
        )
    return ModelDraft(draft.engine)
