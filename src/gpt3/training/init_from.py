"""Weights to start from (``gpt3 train --init-from MODEL``): those of any model that `--model` takes elsewhere.

Shape, activation, window and tokenizer come with them. A run that resumes reads all of that from its checkpoint, so the model
that it began with may be gone by then; what is known of it stays in the run's ``origin.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from gpt3 import __version__
from gpt3.corpus.manifest import is_shard_folder
from gpt3.corpus.prepare import cache_folder
from gpt3.corpus.shards import open_shards
from gpt3.durable import replacing, sha256_of
from gpt3.errors import InputError
from gpt3.ladder.presets import Preset, flops_per_token
from gpt3.model import GPT3Config
from gpt3.model_folder import locate
from gpt3.model_folder.convert import Checkpoint, checkpoint_of, read_checkpoint
from gpt3.model_folder.load import load_folder
from gpt3.model_folder.write import licence_lines
from gpt3.tokenizer.loading import load_tokenizer, tokenizer_hash
from gpt3.training.continuing import batch_tokens, peak_rate, short_name
from gpt3.training.data import OWN
from gpt3.training.options import TrainOptions
from gpt3.training.origin import LICENCE_FILES, read_origin
from gpt3.training.replay import run_sources

Agree = Callable[[Callable[[], Any]], Any]
MOST_PADDING = 1024
"""A vocabulary is padded by fewer rows than this, to a number that hardware likes."""
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


@dataclass(frozen=True)
class WeightsShape(Preset):
    """The shape of given weights. Memory is estimated as for an MLP of 4 x d_model, every second layer banded and a tied head."""

    of: GPT3Config | None = None
    """Their configuration; every model of this shape has it, but for dropout."""
    count: int = 0
    """Their number of parameters."""

    @property
    def parameters(self) -> int:
        """Exact number of parameters, a tied head counted once."""
        return self.count

    @property
    def flops_per_token(self) -> float:
        """Operations of a training step per token at this context."""
        return flops_per_token(self.config(), self.context)

    def config(self, **overrides: Any) -> GPT3Config:
        """The weights' configuration, in float32. Of `overrides` dropout counts, and token ids where the weights have none."""
        assert self.of is not None
        values = self.of.to_dict()
        wanted = {key: value for key, value in overrides.items() if key in DROPOUTS or values.get(key, 0) is None}
        config = GPT3Config.from_dict({key: value for key, value in (values | wanted).items() if key != "dtype"})
        config.dtype = torch.float32
        return config


@dataclass(frozen=True)
class Initial:
    """The weights that a run starts from, checked, not read yet."""

    name: str
    """The model as ``--init-from`` names it."""
    checkpoint: Checkpoint
    tokenizer: PreTrainedTokenizerFast
    hub_id: str | None = None
    """Its repository on the hub, if it came from there."""

    def __str__(self) -> str:
        config = self.checkpoint.config
        return (
            f"{self.checkpoint.conversion.family} from {self.name}; {config.max_position_embeddings} positions, "
            f"{config.activation_function}, tokenizer of {len(self.tokenizer):,} ids"
        )

    def weight(self, name: str) -> torch.Tensor:
        """One of our parameters by its name."""
        return self.checkpoint.tensor(name, torch.float32)

    def shape(self, options: TrainOptions) -> WeightsShape:
        """The weights' shape, with the batch and the peak rate for their size (`gpt3.training.continuing`).

        Raises:
            InputError: a ``--context`` beyond the positions that the weights have.
        """
        config = self.checkpoint.config
        positions = config.max_position_embeddings
        context = options.context or positions
        if context > positions:
            raise InputError(
                f"--context {context} exceeds the {positions} positions of --init-from {self.name}: positions are learned, and "
                f"it has learned no others. Use --context {positions} or less."
            )
        parameters = self.checkpoint.empty_model().num_parameters()
        return WeightsShape(
            name=short_name(self.name), n_layers=config.num_hidden_layers, d_model=config.hidden_size,
            n_heads=config.num_attention_heads, d_head=config.head_dim, window=config.sliding_window,
            vocab_size=config.vocab_size, context=context, positions=positions,
            batch_tokens=max(1, batch_tokens(parameters) // context) * context, learning_rate=peak_rate(parameters),
            of=config, count=parameters,
        )  # fmt: skip

    def with_tokenizer(self, options: TrainOptions, agree: Agree) -> TrainOptions:
        """`options` whose ``tokenizer`` is a folder with the weights' own, so that data is prepared with it.

        Args:
            agree: `World.agree`: rank 0 checks and writes the folder.

        Raises:
            InputError: ``--tokenizer``, or shards of ``--data``, ``--mixture`` or ``--replay``, of another one.
        """
        folder = agree(lambda: self.check_tokenizers(options))
        return dataclasses.replace(options, tokenizer=str(folder))

    def check_tokenizers(self, options: TrainOptions) -> Path:
        """Compare the tokenizers that `options` name with the weights' own, and put that into a folder; see `with_tokenizer`."""
        own = tokenizer_hash(self.tokenizer)
        mine = f"of --init-from {self.name} ({len(self.tokenizer):,} ids, hash {own[:12]})"
        if (name := options.tokenizer) is not None:
            if name.startswith(OWN):
                raise InputError(f"--tokenizer {name} would not be the tokenizer {mine}. Leave out --tokenizer")
            other = load_tokenizer(name)
            if (found := tokenizer_hash(other)) != own:
                raise InputError(
                    f"--tokenizer {name} ({len(other):,} ids, hash {found[:12]}) is not the tokenizer {mine}. "
                    "Leave out --tokenizer"
                )
        folder = save_tokenizer(self.tokenizer, own)
        for spec in run_sources(options):
            for source in filter(is_shard_folder, spec.data):
                manifest = open_shards(source).manifest
                if manifest.tokenizer_sha256 != own:
                    raise InputError(
                        f"the shards in {source} were made by another tokenizer ({manifest.vocab_size:,} ids, hash "
                        f"{manifest.tokenizer_sha256[:12]}) than that {mine}. Give their text instead, or prepare it again: "
                        f"gpt3 prepare --data TEXT --tokenizer {folder} --out FOLDER"
                    )
        return folder

    def origin(self) -> dict[str, Any]:
        """What is known of where the weights come from: family, name, sha256 of the files, licence, and their own origin."""
        # of an adapter, its base first
        folders = list(dict.fromkeys(file.parent for file in reversed(self.checkpoint.files)))
        licences = {
            name: file.read_text(encoding="utf-8", errors="replace")
            for folder in folders
            for name in locate.LICENCES
            if (file := folder / name).is_file()
        }
        runs = [folder.absolute().parents[1] for folder in folders if folder.name.startswith("step-")]  # of checkpoints
        before = next(filter(None, map(read_origin, [*folders, *runs])), None)
        known = before or {}
        return {
            "family": self.checkpoint.conversion.family,
            "source": self.hub_id or short_name(self.name),  # no path of this machine
            "hub_id": self.hub_id,
            "sha256": {file.name: sha256_of(file) for file in self.checkpoint.files},
            "licence": next(filter(None, map(licence_lines, folders)), known.get("licence", [])),
            LICENCE_FILES: licences or known.get(LICENCE_FILES, {}),
            "notes": self.checkpoint.conversion.notes,
            "origin": before and {key: value for key, value in before.items() if key != LICENCE_FILES},
            "written_by": f"gpt3 {__version__}",
        }


def open_initial(options: TrainOptions, checkpoint: Path | None, agree: Agree) -> Initial | None:
    """The weights to start from; None without ``--init-from``.

    Args:
        checkpoint: of the run, if it resumes: that is read instead.
        agree: `World.agree`: rank 0 downloads what is not here.

    Raises:
        InputError: no such model, one of an unknown family, tensors missing, a tokenizer with more ids than the model, or none.
    """
    if options.init_from is None:
        return None
    what = f"--init-from {options.init_from}"

    def place_of() -> list[str | None]:
        try:
            place = locate.find(str(options.init_from))
            return [str(place), None] if isinstance(place, Path) else [str(locate.fetch(place)), place]
        except InputError as error:
            raise InputError(f"--init-from {error}") from None

    place, repository = (str(checkpoint), None) if checkpoint is not None else agree(place_of)
    folder = Path(place)
    if locate.is_adapter(folder):
        try:
            loaded = load_folder(folder, torch.float32)
        except InputError as error:
            raise InputError(f"--init-from {error}") from None
        found = checkpoint_of(loaded.model, loaded.tokenizer, folder, loaded.files)
        found.conversion.family = loaded.family
    else:
        found = read_checkpoint(folder, what if checkpoint is None else None, allow_ours=True)
    if found.tokenizer is None and options.tokenizer is not None and not options.tokenizer.startswith(OWN):
        found.tokenizer = _named_tokenizer(options.tokenizer, found.config.vocab_size, what)
    if found.tokenizer is None:
        raise InputError(
            f"{what} has no tokenizer ({locate.TOKENIZER}), so its token ids mean nothing. Name the model's own with "
            f"--tokenizer (gpt2, or a folder), or put it into {folder}"
        )
    if found.tokenizer.eos_token_id is None:
        raise InputError(
            f"{what}: its tokenizer names no EOS token, which ends documents. Set eos_token in "
            f"{folder / locate.TOKENIZER_CONFIG}"
        )
    return Initial(options.init_from, found, found.tokenizer, repository)


def _named_tokenizer(name: str, vocab_size: int, what: str) -> PreTrainedTokenizerFast:
    """The tokenizer that ``--tokenizer`` names, for weights that have none.

    Raises:
        InputError: it has more ids than the weights, or so many fewer that they are not padded to a round number.
    """
    tokenizer = load_tokenizer(name)
    if not vocab_size - MOST_PADDING < len(tokenizer) <= vocab_size:
        raise InputError(
            f"--tokenizer {name} has {len(tokenizer):,} ids, {what} {vocab_size:,}. Name the tokenizer that the model was "
            "trained with"
        )
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, digest: str) -> Path:
    """A folder of the cache that holds `tokenizer`, whose hash is `digest`."""
    folder = cache_folder() / "tokenizers" / f"{len(tokenizer)}-{digest[:16]}"
    if not (folder / locate.TOKENIZER).is_file():
        with replacing(folder) as temporary:
            tokenizer.save_pretrained(temporary)
    return folder
