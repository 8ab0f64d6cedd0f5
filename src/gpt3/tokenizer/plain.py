"""A folder's tokenizer without transformers, whose import takes longer than a short text: the same ids, from the same files.

Only what is plain is read here: a tokenizer.json whose special tokens are all in it, roles that are texts, and settings that
change no id. `read_plain` gives None for all else, which transformers reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_FILE, CONFIG_FILE, TEMPLATE_FILE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
ELSEWHERE = ("special_tokens_map.json", "added_tokens.json", "additional_chat_templates")
"""Where older versions have further roles and tokens."""
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
WITHOUT_EFFECT = (
    "backend", "clean_up_tokenization_spaces", "is_local", "local_files_only", "model_max_length", "tokenizer_class",
    "name_or_path", "model_input_names", "errors",
)  # fmt: skip
"""Settings that change no id."""
CLASSES = (None, "TokenizersBackend", "PreTrainedTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast")


class PlainTokenizer:
    """A byte-level BPE with the names of transformers' tokenizer; what is not here, that tokenizer does, loaded when asked.

    Args:
        backend: of the tokenizers library.
        roles: texts of the special tokens, by ROLES.
        split_special_tokens: whether text that spells a special token stays text, unless a call says otherwise.
        chat_template: a text, or None.
        whole: loads transformers' tokenizer of the same files.
    """

    def __init__(
        self,
        backend: Tokenizer,
        roles: dict[str, str],
        split_special_tokens: bool,
        chat_template: str | None,
        whole: Callable[[], PreTrainedTokenizerFast],
    ) -> None:
        self.backend_tokenizer, self.special_tokens_map = backend, roles
        self.split_special_tokens, self.chat_template = split_special_tokens, chat_template
        self._whole = whole
        for role in ROLES:
            token = roles.get(role)
            setattr(self, role, token)
            setattr(self, f"{role}_id", None if token is None else backend.token_to_id(token))

    @cached_property
    def whole(self) -> PreTrainedTokenizerFast:
        """transformers' tokenizer of the same files."""
        return self._whole()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.whole, name)

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return _itself, (self.whole,)

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """Added tokens by id."""
        found: dict[int, Any] = self.backend_tokenizer.get_added_tokens_decoder()
        return found

    def get_chat_template(self, *arguments: Any, **options: Any) -> str:
        """As transformers' tokenizer."""
        if isinstance(self.chat_template, str) and not arguments and not options:
            return self.chat_template
        found: str = self.whole.get_chat_template(*arguments, **options)
        return found

    def get_vocab(self) -> dict[str, int]:
        """All tokens, added ones included, and their ids."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def __call__(self, text: Any, **options: Any) -> Any:
        """As transformers' tokenizer. Calls for the ids alone (`return_attention_mask=False`) need no transformers."""
        asked = {**options}
        special, split = asked.pop("add_special_tokens", True), asked.pop("split_special_tokens", None)
        asked.pop("verbose", None)
        if asked != {"return_attention_mask": False}:
            return self.whole(text, **options)
        self.backend_tokenizer.encode_special_tokens = self.split_special_tokens if split is None else split
        texts = [text] if isinstance(text, str) else text
        found = [each.ids for each in self.backend_tokenizer.encode_batch(texts, add_special_tokens=special)]
        return {"input_ids": found[0] if isinstance(text, str) else found}


def _is_wide(token: Any) -> bool:
    """Whether a token takes more than its own letters, or less; transformers makes those with a role plain ones."""
    return bool(token.single_word or token.lstrip or token.rstrip or token.normalized)


def _itself(tokenizer: Any) -> Any:
    return tokenizer


def read_plain(folder: Path, whole: Callable[[], PreTrainedTokenizerFast]) -> PlainTokenizer | None:
    """The tokenizer in a folder; None where it is not plain, or does not load.

    Args:
        whole: loads it with transformers.
    """
    if any((folder / name).exists() for name in ELSEWHERE):
        return None
    try:
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        backend = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        template = folder / TEMPLATE_FILE
        chat_template = template.read_text(encoding="utf-8") if template.is_file() else None
    except Exception:  # tokenizers raises plain Exception; transformers names the fault
        return None
    roles = {role: settings.pop(role) for role in ROLES if settings.get(role) is not None}
    split = settings.pop("split_special_tokens", False)
    kind, further = settings.pop("tokenizer_class", None), settings.pop("extra_special_tokens", [])
    added = backend.get_added_tokens_decoder().values()
    special = {token.content for token in added if token.special and not _is_wide(token)}
    plain = (
        kind in CLASSES
        and isinstance(split, bool)
        and isinstance(further, list)
        and special.issuperset([token for token in (*roles.values(), *further) if isinstance(token, str)])
        and all(isinstance(token, str) for token in (*roles.values(), *further))
        and "eos_token" in roles
        and isinstance(backend.decoder, ByteLevel)
        and backend.post_processor is not None
        and set(settings) <= {*WITHOUT_EFFECT, *ROLES}
        and backend.get_vocab_size() <= 100_000  # above, transformers looks for a fault of Mistral's
    )
    if not plain:
        return None
    backend.no_truncation()
    backend.no_padding()
    return PlainTokenizer(backend, roles, split, chat_template, whole)
