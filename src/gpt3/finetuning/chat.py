"""A conversation with a model: its history, what of it fits the context, and answers as they are generated."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from gpt3.corpus.records import decoded
from gpt3.durable import write_text
from gpt3.errors import InputError
from gpt3.finetuning.conversations import RowError, as_messages
from gpt3.finetuning.samples import end_of_answers
from gpt3.inference.decoding import Decoder
from gpt3.inference.generation import Generation, GenerationRequest
from gpt3.inference.language_model import LanguageModel
from gpt3.inference.options import SamplingOptions
from gpt3.tokenizer.chat_template import EXAMPLES, FEW_SHOT_STOPS, ChatTemplate, Message, few_shot_text, has_template
from gpt3.work_folder import check_file

ANSWER_SHARE = 4
"""At least a fourth of the context is kept free for the answer, or max_new_tokens where that is less."""


class Chat:
    """A conversation with a model.

    The cache of keys and values is kept from turn to turn: a turn computes only what is new of the prompt.

    Args:
        model: what `gpt3.load` returns.
        options: how tokens are chosen; by default temperature 0.7 and top-p 0.9.
        system: the system message.
        few_shot: ask as a base model is asked, after few-shot examples; None: where the model has no chat template.

    Attributes:
        messages: the conversation so far.
        dropped: messages that the last prompt left out, because the context was full.
        last: the last answer with its figures.

    Raises:
        InputError: a chat template whose generation marks are wrong. One without marks, as most of the hub's are, will do: then
            what ends an answer is known from the model's generation_config alone.

    Example:
        >>> chat = Chat(gpt3.load("runs/sft-demo"))
        >>> for piece in chat.reply("What is the Eiffel Tower?"):
        ...     print(piece, end="")
    """

    SETTABLE = tuple(
        field.name for field in dataclasses.fields(SamplingOptions) if field.name not in ("num_samples", "logprobs")
    )
    """The sampling options that `set_option` takes."""

    def __init__(
        self,
        model: LanguageModel,
        options: SamplingOptions | None = None,
        *,
        system: str | None = None,
        few_shot: bool | None = None,
    ) -> None:
        self.model = model
        self.options = options or SamplingOptions(temperature=0.7, top_p=0.9)
        self.few_shot = not has_template(model.tokenizer) if few_shot is None else few_shot
        self._template = None if self.few_shot else ChatTemplate(model.tokenizer)
        if self._template is not None and self._template.marked:
            model.ends.add(end_of_answers(self._template))
        self.messages: list[Message] = []
        self.dropped = 0
        self.last: Generation | None = None
        self._drawn = 0
        self._decoder = Decoder(model.engine, 1, model.engine.context)
        self.set_system(system or "")

    def prompt(self, messages: list[Message], shots: int | None = None) -> list[int]:
        """Token ids up to where the next answer begins; a base model is asked after `shots` examples (default: all)."""
        if self._template is None:
            return self.model.encode_prompt(few_shot_text(messages, shots), plain=True)
        return self._template.prompt(messages)

    def reply(self, text: str) -> Generator[str]:
        """Send a message; yields the answer in pieces. Whoever stops iterating keeps the answer so far.

        Raises:
            InputError: an empty message, or one that alone is longer than the context; the conversation is as before.
        """
        if not text.strip():
            raise InputError("the message is empty. Type one.")
        unanswered = bool(self.messages) and self.messages[-1].role == "user"  # nobody iterated over its answer
        return self._answer([*self.messages[: len(self.messages) - unanswered], Message("user", text.strip())])

    def regenerate(self) -> Generator[str]:
        """Take the last answer back and generate another.

        Raises:
            InputError: there is none yet.
        """
        if not self.messages or self.messages[-1].role == "system":
            raise InputError("there is no answer yet. Send a message first.")
        return self._answer(self.messages[: len(self.messages) - (self.messages[-1].role == "assistant")])

    def _answer(self, messages: list[Message]) -> Generator[str]:
        prompt = self._fitting(messages)
        self.messages = messages
        return self._pieces(prompt)

    def _pieces(self, prompt: list[int]) -> Generator[str]:
        left, seed = self.model.engine.context - len(prompt), self.options.seed
        options = dataclasses.replace(
            self.options,
            max_new_tokens=min(self.options.max_new_tokens, left),
            min_new_tokens=min(self.options.min_new_tokens, left),
            seed=None if seed is None else seed + self._drawn,  # else regenerate repeats itself
            stop=[*self.options.stop, *(FEW_SHOT_STOPS if self.few_shot else ())],
        )
        self._drawn += 1
        request = GenerationRequest(self.model, [prompt], options, decoder=self._decoder)
        try:
            for _, piece in request:
                yield piece
        finally:
            request.close()
            self.last = request.result(0)
            self.messages.append(Message("assistant", self.last.text.strip()))

    def _fitting(self, messages: list[Message]) -> list[int]:
        """The prompt; to leave space for an answer, the oldest exchanges are left out first, then few-shot examples."""
        context = self.model.engine.context
        limit = context - min(self.options.max_new_tokens, max(1, context // ANSWER_SHARE))
        system = [message for message in messages[:1] if message.role == "system"]
        turns = messages[len(system) :]
        for shots in range(len(EXAMPLES), -1, -1) if self.few_shot else [None]:
            for start in range(0, len(turns), 2):
                prompt = self.prompt([*system, *turns[start:]], shots)
                if len(prompt) <= limit:
                    self.dropped = start
                    return prompt
        raise InputError(
            f"the message is {len(prompt):,} tokens long with what precedes it, and the context leaves {limit:,}. Shorten it."
        )

    def reset(self) -> None:
        """Forget all but the system message."""
        self.messages = [message for message in self.messages[:1] if message.role == "system"]
        self.dropped = 0

    def set_system(self, text: str) -> None:
        """Start a new conversation with this system message; with "", with none."""
        self.messages = [Message("system", text.strip())] if text.strip() else []
        self.dropped = 0

    def set_option(self, name: str, value: str) -> Any:
        """Change one of SamplingOptions, given as text; returns the new value.

        Raises:
            InputError: an unknown name, or a value out of its range.
        """
        key = name.replace("-", "_")
        if key not in self.SETTABLE:
            raise InputError(f"unknown option {name!r}. The options are {', '.join(self.SETTABLE)}.")
        try:
            new = json.loads(value)
        except ValueError:
            new = value
        self.options = dataclasses.replace(self.options, **{key: new})
        return getattr(self.options, key)

    def save(self, path: Path | str) -> None:
        """Write the conversation as JSON, which `load` and ``gpt3 finetune --data`` read.

        Raises:
            InputError: the file cannot be written, or is no conversation.
        """
        record = {"messages": list(map(dataclasses.asdict, self.messages))}
        try:
            file = Path(path).expanduser()
            check_file("/save", file, b'"messages"')
            write_text(file, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user that there is not
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path} cannot be written ({reason}). Choose another file.") from None

    def load(self, path: Path | str) -> None:
        """Continue a conversation that `save` wrote.

        Raises:
            InputError: no such file, not JSON, or not a conversation.
        """
        try:
            record = json.loads(decoded(Path(path).expanduser().read_bytes(), str(path)))
            messages = list(as_messages(record["messages"]))
            turns = messages[1:] if messages[:1] and messages[0].role == "system" else messages
            if any(turn.role != ("user", "assistant")[number % 2] for number, turn in enumerate(turns)):
                raise RowError("user and assistant do not alternate")  # an answer may be empty: models do that
        except (OSError, RuntimeError) as error:  # as in `save`; or JSON nested too deeply
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path} cannot be read ({reason}). Name a file that /save wrote.") from None
        except (ValueError, KeyError, TypeError, RowError) as error:
            raise InputError(f"{path} is not a conversation ({error}). Name a file that /save wrote.") from None
        self.messages, self.dropped = messages, 0
