"""``gpt3 publish``: a model with its card, evaluation results and GGUF files as one repository of the Hugging Face hub."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.cli.formats import BYTES
from gpt3.durable import check_room
from gpt3.errors import InputError
from gpt3.model_folder.locate import CARD, CONFIG, HUB_ID, locate
from gpt3.options import Options, option
from gpt3.progress import say
from gpt3.tables import aligned, counted


@dataclass(frozen=True)
class PublishOptions(Options):
    """Put a model on the Hugging Face hub: model folder, card, evaluation results and GGUF files, in one commit. Transformers,
    llama.cpp, LM Studio and gpt3 then load it by its name (docs/publish.md)."""

    names: list[str] = option([], common=True)
    """The run or model folder, and the repository (OWNER/NAME). With the repository alone: the newest run in ./runs."""
    gguf: list[str] = option([], common=True)
    """Add GGUF files in these number formats, such as f16,q8_0: f32, f16, bf16, q8_0, q4_0."""
    evaluation: str | None = option(None, common=True)
    """Folder of gpt3 eval's results to add. Default: eval/RUN, if it is newer than the weights."""
    license: str | None = option(None, common=True)
    """The weights' licence by the hub's id, such as mit or cc-by-sa-4.0. Default: the one that the card names."""
    public: bool = option(False, common=True)
    """Let everyone read the repository; otherwise a new one is private."""
    overwrite: bool = option(False)
    """Publish into a repository that holds something else than a gpt3 model; its files of other names stay."""
    dry_run: bool = option(False, common=True)
    """Write and check everything, show every file with its size, and the card; upload nothing."""

    @property
    def dtypes(self) -> list[str]:
        """The number formats of the GGUF files, each once."""
        return list(
            dict.fromkeys(part.strip().lower() for item in self.gguf for part in item.split(",") if part.strip())
        )

    @property
    def repository(self) -> str:
        """The repository's name."""
        return self.names[-1]

    def errors(self) -> Iterator[str]:
        """Names that are no repository, and unknown formats."""
        if not 1 <= len(self.names) <= 2 or (len(self.names) == 1 and Path(self.repository).exists()):
            yield "give the run and the repository: gpt3 publish runs/demo OWNER/NAME"
        elif not HUB_ID.fullmatch(self.repository) or re.search(r"--|\.\.|(\.git|[.-])$|^.{97}", self.repository):
            yield f"{self.repository!r} is not the name of a repository. Give OWNER/NAME, at most 96 letters, digits and -_."
        for dtype in self.dtypes:
            if dtype not in BYTES:
                yield f"--gguf {dtype} must be one of {', '.join(BYTES)}"


def run(options: PublishOptions) -> str:
    """Gather the files, show them, and upload them unless it is a dry run. Returns the repository's address.

    Raises:
        InputError: no finished model, a GGUF format that cannot hold it; see `gpt3.export.hub.upload`.
        RunError: a GGUF file that differs from the model; the network failed.
    """
    from gpt3.export.card import published_card, read_results, results_bytes
    from gpt3.export.hub import RESULTS, check_names, model_files, upload

    place = locate(options.names[0] if len(options.names) == 2 else None)
    if not isinstance(place, Path):
        raise InputError(f"{place} is not a folder on this machine. Give a run or a model folder")
    files: dict[str, Path | bytes] = dict(model_files(place))
    check_names(options.repository, options.dtypes)
    results = None
    if (folder := _results_folder(options, place, files)) is not None:
        results = read_results(folder, options.repository)
        files[RESULTS] = results_bytes(results)
    with tempfile.TemporaryDirectory(prefix="gpt3-publish-") as temporary:
        ggufs = _write_ggufs(options, place, Path(temporary), files) if options.dtypes else {}
        text = (place / CARD).read_text(encoding="utf-8")
        card = published_card(text, options.repository, licence=options.license, ggufs=ggufs, results=results)
        files[CARD] = card.encode()
        print("\n".join(_listing(options, files)))
        if "\nlicense:" not in card.partition("\n---")[0]:
            say("the card names no licence, so nobody may use the weights. Add --license ID, such as mit")
        if options.dry_run:
            print(f"\n{card}\nnothing was uploaded (--dry-run)")
            return ""
        address, others = upload(
            files, options.repository, options.dtypes, public=options.public, overwrite=options.overwrite
        )
    if others:
        say(f"other files stay in the repository: {', '.join(others)}")
    print(f"published: {address}")
    print(f'run it: gpt3 generate --model {options.repository} "The history of"')
    return address


def _results_folder(options: PublishOptions, place: Path, files: dict[str, Path | bytes]) -> Path | None:
    """The folder with the evaluation's results to publish; None if there is none."""
    from gpt3.evaluation.results import results_folder

    if options.evaluation is not None:
        return Path(options.evaluation)
    folder = results_folder(Path("eval"), place)
    path = folder / "results.json"
    if not path.is_file():
        return None
    newest = max(
        value.stat().st_mtime for name, value in files.items() if isinstance(value, Path) and ".safetensors" in name
    )
    if path.stat().st_mtime < newest:
        say(
            f"{path} is older than the weights and is left out. Run gpt3 eval again, or name it with --evaluation {folder}"
        )
        return None
    return folder


def _write_ggufs(
    options: PublishOptions, place: Path, folder: Path, files: dict[str, Path | bytes]
) -> dict[str, list[str]]:
    """Write and check the GGUF files, and add them to `files`; what the check of each found."""
    from gpt3.export.gguf import compare_gguf, write_gguf  # first, or an error that says how to install its package
    from gpt3.export.hub import gguf_name
    from gpt3.export.stock import fit
    from gpt3.model_folder.load import load_transformers

    model: Any
    model, tokenizer = load_transformers(place, device="cpu", dtype="fp32")
    context, rows = fit(model.config, tokenizer, "gguf", None)
    need = sum(model.num_parameters() * BYTES[dtype] for dtype in options.dtypes)
    check_room(folder, int(need), purpose="the GGUF files", elsewhere="another folder with TMPDIR")
    found = {}
    for dtype in options.dtypes:
        path = folder / gguf_name(options.repository, dtype)
        write_gguf(model, tokenizer, path, dtype=dtype, context=context, name=options.repository.partition("/")[2])
        lines = compare_gguf(model, tokenizer, path, dtype, context, rows)
        found[dtype] = [f"context {context:,}", lines[0]]
        files[path.name] = path
    return found


def _listing(options: PublishOptions, files: dict[str, Path | bytes]) -> list[str]:
    """Every file with its size, the card and config.json first."""
    sizes = {name: len(value) if isinstance(value, bytes) else value.stat().st_size for name, value in files.items()}
    names = sorted(sizes, key=lambda name: (name not in (CARD, CONFIG), name))
    rows = [(f"  {name}", f"{sizes[name]:,} bytes") for name in names]
    kind = "public" if options.public else "private"
    return [
        f"{options.repository} ({kind}), {counted(len(files), 'file')}, {sum(sizes.values()) / 1e6:,.1f} MB:",
        *aligned(rows),
    ]
