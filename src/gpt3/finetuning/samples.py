"""Conversations as training samples: token ids and labels that fit the context, and a count of what had to be cut.

The chat template that makes them is chosen, given to tokenizer and model, and checked here, before training.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from gpt3.errors import InputError
from gpt3.finetuning.conversations import Conversation
from gpt3.finetuning.options import FinetuneOptions
from gpt3.model.vocabulary import resize_vocabulary
from gpt3.tables import counted
from gpt3.tokenizer.chat_template import GENERATION, ChatTemplate, Message

IGNORED = -100
"""The label of a token that is read and not trained."""
GREEN, PLAIN = "\x1b[32m", "\x1b[0m"
FOLDER = Path(__file__).parent / "templates"
NAMED = ("harmony", "chatml")
SPECIAL = re.compile(r"<\|[^|<>\s]+\|>")
PROBE = (
    Message("system", "Be brief."),
    Message("user", "One?"),
    Message("assistant", "First answer."),
    Message("user", "Two?"),
    Message("assistant", "Second answer."),
)


def learned_template(choice: str | None, tokenizer: PreTrainedTokenizerFast) -> tuple[ChatTemplate, list[str], int]:
    """The template to train with, given to the tokenizer and checked; its new special tokens; the id that ends an answer.

    Raises:
        InputError: see `read_template` and `end_of_answers`.
    """
    new = prepare_tokenizer(tokenizer, read_template(choice, tokenizer))
    template = ChatTemplate(tokenizer)
    return template, new, end_of_answers(template)


def read_template(choice: str | None, tokenizer: PreTrainedTokenizerFast) -> str:
    """The Jinja source of ``harmony``, ``chatml`` or a file; None: the tokenizer's own, else harmony's.

    Raises:
        InputError: no such template, a file that is not UTF-8, or one without generation marks.
    """
    own = tokenizer.chat_template
    if choice is None and isinstance(own, str) and GENERATION.search(own):
        return own
    name = choice or "harmony"
    path = FOLDER / f"{name}.jinja" if name in NAMED else Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"--chat-template {name}: no such template. Give {', '.join(NAMED)} or a Jinja file.")
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--chat-template {name} is not UTF-8 at byte {error.start}. Convert it to UTF-8.") from None
    if not GENERATION.search(source):
        raise InputError(
            f"--chat-template {name} has no generation marks. Put {{% generation %}} … {{% endgeneration %}} around what the "
            "assistant says, its end token included."
        )
    return source.rstrip("\n") if name in NAMED else source


def prepare_tokenizer(tokenizer: PreTrainedTokenizerFast, source: str) -> list[str]:
    """Give a tokenizer a chat template and the special tokens it spells; returns those that are new."""
    known = tokenizer.get_vocab()
    new = [token for token in dict.fromkeys(SPECIAL.findall(source)) if token not in known]
    if new:
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in new], special_tokens=True)
    tokenizer.chat_template = source
    tokenizer.split_special_tokens = False  # apply_chat_template of transformers goes through the tokenizer's default
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # labels say what counts, never the id
    return new


def add_tokens(model: Any, tokenizer: Any, new: list[str]) -> list[int]:
    """Give the model rows for the tokenizer's new tokens, each the mean of all rows it had; returns their ids.

    Padding rows of the vocabulary go: trainers take every row for a token.
    """
    had = getattr(model.config, "real_vocab_size", None) or model.get_input_embeddings().num_embeddings
    ids = [tokenizer.convert_tokens_to_ids(token) for token in new]
    resize_vocabulary(model, max([had, *(number + 1 for number in ids)]), ids)
    return ids


def end_of_answers(template: ChatTemplate) -> int:
    """The id that ends an answer, once the template has shown on a probe what training and chat rest on.

    - A conversation's beginning is the beginning of its tokens (else history cannot be kept, nor cut at turns).
    - The prompt for an answer is followed by just the trained tokens of that answer (else it trains what is never asked).
    - Every answer ends in one and the same special token, which is trained (else the model never learns to stop).

    Raises:
        InputError: naming the property that does not hold.
    """
    if not template.marked:
        raise InputError("the chat template has no generation marks. Put {% generation %} around the answers.")
    whole, _ = template.encode(PROBE)
    ends = set()
    for count in (3, 5):
        ids, trained = template.encode(PROBE[:count])
        prompt = template.prompt(PROBE[: count - 1])
        if whole[: len(ids)] != ids:
            raise InputError(
                "the chat template is not prefix-preserving: a longer conversation begins otherwise. Choose another."
            )
        stop = len(ids) - trained[::-1].index(True) if any(trained) else 0
        just_the_answer = not trained[len(prompt) - 1] and all(trained[len(prompt) : stop])
        if ids[: len(prompt)] != prompt or not just_the_answer or stop <= len(prompt):
            raise InputError(
                "the chat template's generation prompt is not what precedes the trained answer. Choose another template."
            )
        ends.add(ids[stop - 1])
    known = template.tokenizer.added_tokens_decoder
    end = ends.pop()
    if ends or end not in known or not known[end].special:
        raise InputError(
            "the chat template trains no end token. Put one special token, such as <|end|>, last between the generation marks."
        )
    return end


def set_ends(model: Any, tokenizer: Any, end: int) -> None:
    """Let generation end at the end of an answer, as at the end of a document."""
    model.generation_config.eos_token_id = list(
        dict.fromkeys(id_ for id_ in (end, tokenizer.eos_token_id) if id_ is not None)
    )
    model.generation_config.pad_token_id = tokenizer.pad_token_id


@dataclass
class Samples:
    """Samples as columns, as `datasets.Dataset.from_dict` takes them, and a count of what did not fit the context."""

    columns: dict[str, list[list[int]]]
    """Each value is a list of token ids or labels."""
    samples: int = 0
    trained_tokens: int = 0
    tokens: int = 0
    turns: int = 0
    """Conversations that lost their last exchanges."""
    answers: int = 0
    """Conversations whose only remaining answer lost its end."""
    dropped: int = 0
    """Conversations whose first question alone fills the context; pairs that are too long."""

    def add(self, *values: list[int], tokens: int, trained: int) -> None:
        """Append one sample, a value for each column."""
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
        self.samples += 1
        self.tokens += tokens
        self.trained_tokens += trained

    def counts(self) -> dict[str, int]:
        """All numbers."""
        return {name: value for name, value in vars(self).items() if name != "columns"}

    def line(self, context: int) -> str:
        """A summary to print."""
        text = f"{counted(self.samples, 'sample')}, {counted(self.tokens, 'token')}, {self.trained_tokens:,} of them trained"
        kinds = {
            "lost their last turns": self.turns,
            "lost the end of their answer": self.answers,
            "dropped": self.dropped,
        }
        lost = [f"; {count:,} {what}" for what, count in kinds.items() if count]
        return text + "".join(lost) + (f" (context {context})" if lost else "")


def samples_for(options: FinetuneOptions, items: list[Conversation], template: ChatTemplate, context: int) -> Samples:
    """Conversations, or for DPO preferences, as the options' method trains them."""
    if options.method == "dpo":
        return preference_samples(items, template, context)
    return conversation_samples(items, template, context, options.train_on)


def conversation_samples(
    conversations: Iterable[Conversation], template: ChatTemplate, context: int, train_on: str = "assistant"
) -> Samples:
    """Columns ``input_ids`` and ``labels`` (`IGNORED` where a token is not trained), each sample at most `context` tokens.

    Raises:
        InputError: not one conversation fits `context`.
    """
    made = Samples({"input_ids": [], "labels": []})
    for conversation in conversations:
        ids, said = fitted(template, conversation.messages, context, made)
        if ids:
            said = said if train_on == "assistant" else [True] * len(ids)
            labels = [id_ if trained else IGNORED for id_, trained in zip(ids, said, strict=True)]
            made.add(ids, labels, tokens=len(ids), trained=sum(said))
    return _checked(made, "conversations", context)


def add_texts(made: Samples, texts: Iterable[str], template: ChatTemplate, context: int, tokens: int) -> int:
    """Append rows of plain text, documents joined by the end-of-text token, as a base model reads them; all tokens are trained.

    As many rows of `context` tokens as come closest to `tokens`, or as many as the texts give; returns how many.
    """
    row: list[int] = []
    rows, wanted = 0, round(tokens / context)
    for text in texts:
        row += [*template.plain(text), template.tokenizer.eos_token_id]
        while len(row) >= context and rows < wanted:
            made.add(row[:context], row[:context], tokens=context, trained=context)
            row = row[context:]
            rows += 1
        if rows == wanted:
            break
    return rows


def preference_samples(preferences: Iterable[Conversation], template: ChatTemplate, context: int) -> Samples:
    """Columns ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``. A pair with an answer that does not fit is dropped, not cut:
    a cut answer is another answer.

    Raises:
        InputError: not one pair fits `context`.
    """
    made = Samples({"prompt_ids": [], "chosen_ids": [], "rejected_ids": []})
    for pair in preferences:
        before = pair.messages[:-1]
        prompt = template.prompt(before)
        wholes = [template.encode((*before, Message("assistant", answer)))[0] for answer in pair.answers]
        if max(map(len, wholes)) > context:
            made.dropped += 1
            continue
        answers = [whole[len(prompt) :] for whole in wholes]
        trained = sum(map(len, answers))
        made.add(prompt, *answers, tokens=len(prompt) + trained, trained=trained)
    return _checked(made, "pairs", context)


def _checked(made: Samples, what: str, context: int) -> Samples:
    if not made.samples:
        raise InputError(
            f"all {made.dropped:,} {what} are longer than the context of {context} tokens. Shorten them, or give a longer "
            "--context or a model of more positions."
        )
    return made


def fitted(
    template: ChatTemplate, messages: Sequence[Message], context: int, made: Samples
) -> tuple[list[int], list[bool]]:
    """At most `context` tokens of a conversation: all of it, or its first exchanges, or the beginning of its first answer.

    So an answer is trained whole or from its beginning, never from its middle. Without ids: not one token of an answer fits.
    """
    ids, said = template.encode(messages)
    if len(ids) <= context:
        return ids, said
    answers = [number for number, message in enumerate(messages, 1) if message.role == "assistant"]
    for stop in reversed(answers[:-1]):
        shorter = template.encode(messages[:stop])
        if len(shorter[0]) <= context:
            made.turns += 1
            return shorter
    ids, said = ids[:context], said[:context]  # ends in the first exchange, else that would have fitted
    if not any(said):
        made.dropped += 1
        return [], []
    made.answers += 1
    return ids, said


def shown(template: ChatTemplate, ids: list[int], labels: list[int], color: bool | None = None) -> str:
    """A sample as text, what is trained in green; where there is no color, between ⟦ and ⟧."""
    if color is None:
        color = (sys.stdout.isatty() or "FORCE_COLOR" in os.environ) and "NO_COLOR" not in os.environ
    opening, closing = (GREEN, PLAIN) if color else ("⟦", "⟧")
    pieces: list[str] = []
    pairs = zip(labels, ids, strict=True)
    for trained, group in itertools.groupby(pairs, key=lambda pair: pair[0] != IGNORED):
        text = str(template.tokenizer.decode([id_ for _, id_ in group], skip_special_tokens=False))
        pieces.append(f"{opening}{text}{closing}" if trained else text)
    return "".join(pieces)
