"""A sequence in the decoder: its tokens, and all that its next token depends on besides the model's logits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set

from gpt3.errors import InputError
from gpt3.inference.constraint import Constraint
from gpt3.inference.engine import Logits
from gpt3.inference.options import SamplingOptions
from gpt3.inference.scoring import Scores, judge

NO_SLOT = -1


class Row:
    """A row of the batch. Its next token is a function of its logits, options, tokens and (seed, number, step): of no other row.

    Args:
        prompt: ids, at least one and at most the context.
        options: how its tokens are chosen.
        seed, number: of its random numbers.
        ends: EOS tokens, not chosen before `options.min_new_tokens` are there.
        vocabulary: ids from here on are never chosen.
        bad_words: `options.bad_words` as `bad_word_ids` gives them.
        score: score the prompt, too, with this many of the likeliest tokens at each place; None: don't. Such a prompt is read
            whole, whatever others have read of it.
        constraint: what its text must follow.

    Attributes:
        prompt: its tokens.
        tokens: prompt and text.
        counts, text_counts: how often each token is in prompt and text, and in the text alone.
        slot: in the cache; NO_SLOT before and after.
        unread: tokens the model has not read yet.
        scores: of the prompt's tokens from the second on, as far as it was read, in parts.
        unscored: tokens of the prompt that are still to be scored.
        restarts: how often the context was full and its last half was read anew.
        drafted, accepted: tokens that were proposed by a draft, and those of them that were what the model chose.

    Raises:
        InputError: a biased token is outside the vocabulary.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        options: SamplingOptions,
        seed: int,
        number: int,
        ends: Set[int],
        vocabulary: int,
        bad_words: Iterable[Sequence[int]] = (),
        score: int | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        if outside := [token for token in options.logit_bias if token >= vocabulary]:
            raise InputError(
                f"--logit-bias names token {outside[0]}, but the tokenizer has {vocabulary:,}. Use ids below that."
            )
        self.options, self.seed, self.number, self.vocabulary = options, seed, number, vocabulary
        self.ends = sorted(end for end in ends if end < vocabulary)
        self._bad_words = [list(word) for word in bad_words]
        self.prompt, self.tokens, self.unread = list(prompt), list(prompt), list(prompt)
        self.counts, self.text_counts = Counter(prompt), Counter[int]()
        self.slot = NO_SLOT
        self.score, self.constraint = score, constraint
        self.scores: list[Scores] = []
        self.unscored = 0 if score is None else len(self.prompt) - 1
        self.restarts = self.drafted = self.accepted = 0

    @property
    def written(self) -> int:
        """Tokens of the text."""
        return len(self.tokens) - len(self.prompt)

    def push(self, token: int) -> None:
        """Take the next token of the text."""
        self.tokens.append(token)
        self.counts[token] += 1
        self.text_counts[token] += 1
        if self.constraint is not None:
            self.constraint.push(token)

    def take_back(self, count: int) -> None:
        """Forget the last `count` tokens of the text: drafts that were not accepted.

        Raises:
            ValueError: the text has fewer.
        """
        if count > self.written:
            raise ValueError(f"{count} tokens cannot be taken back, the text has {self.written}")
        for _ in range(count):
            token = self.tokens.pop()
            for counts in (self.counts, self.text_counts):
                counts[token] -= 1
                if not counts[token]:
                    del counts[token]
        if self.constraint is not None:
            self.constraint.take_back(count)

    def followers(self) -> list[int]:
        """Tokens that would complete an n-gram of `options.no_repeat_ngram` tokens that was there before."""
        size, tokens = self.options.no_repeat_ngram, self.tokens
        if size < 2:
            return list(self.counts) if size else []
        newest = tokens[1 - size :]
        places = [place for place in range(size - 1, len(tokens)) if tokens[place - 1] == newest[-1]]
        return [tokens[place] for place in places if tokens[place + 1 - size : place] == newest]

    def last_of_bad_words(self) -> list[int]:
        """Tokens that would complete a bad word."""
        return [last for *before, last in self._bad_words if self.tokens[len(self.tokens) - len(before) :] == before]

    def take_scores(self, logits: Logits, read: int) -> int:
        """Score what follows the `read` tokens that gave these logits, (read, V); return how many of these rows that took."""
        first = len(self.prompt) - self.unscored
        ids = self.tokens[first : first + read]
        self.scores.append(judge(logits[: len(ids)], ids, self.score or 0))
        self.unscored -= len(ids)
        return len(ids)


def uniform(seed: int, number: int, step: int) -> float:
    """A number in [0, 1), 53 bits, that is a function of these three and of nothing else.

    Having no generator state, a row's draws stay the same whatever batch the row is in and whenever others end.
    """
    digest = hashlib.blake2b(f"{seed}:{number}:{step}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def bad_word_ids(words: Iterable[str], encode: Callable[[str], Sequence[int]]) -> list[list[int]]:
    """The token sequences that spell these words, alone and after a space (GPT-2's BPE has other tokens for the two).

    A word may still be spelled in other tokens than these, and be part of a longer word.

    Args:
        encode: text to ids, without special tokens.
    """
    spelled = [list(encode(text)) for word in words for text in (word, " " + word.lstrip(" "))]
    return [ids for place, ids in enumerate(spelled) if ids and ids not in spelled[:place]]
