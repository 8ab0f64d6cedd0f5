"""One repository of the Hugging Face hub for a model: its folder, GGUF files and evaluation results, sent in one commit.

How each program finds its file there. Transformers reads config.json at the root. llama.cpp's ``-hf OWNER/NAME:Q8_0`` takes
the first .gguf file, in the order of names, whose name has the tag before a ``-`` or ``.``, in either case. LM Studio's ``lms
get OWNER/NAME@q8_0`` reads the tag from the same place. So a GGUF file is called NAME-TAG.gguf.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt3.corpus.hub import is_passing
from gpt3.errors import InputError, RunError, one_line
from gpt3.model_folder.locate import (
    ADAPTER_CONFIG,
    CARD,
    CONFIG,
    LICENCES,
    ORIGIN,
    SMALL_FILES,
    WEIGHTS,
    is_adapter,
    read_json,
    some,
    weight_files,
)

TAGS = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
"""The quantization in a GGUF file's name, by number format."""
SIDECARS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""llama.cpp takes a file with one of these in its name for something else than a model."""
RESULTS = "evaluation/results.json"
NEUTRAL = {".gitattributes", CARD, *LICENCES}
"""What any repository may have."""


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder that are published, by name: never checkpoints, logs or other files there.

    Raises:
        InputError: an adapter, a model of another kind, one that is not complete, or a folder without a card.
    """
    if is_adapter(folder):
        raise InputError(
            f"{folder} is an adapter ({ADAPTER_CONFIG}). Merge it first: gpt3 import {folder} --out DIR, then publish DIR"
        )
    kind = read_json(folder / CONFIG).get("model_type")
    if kind != "gpt3":
        raise InputError(
            f"{folder} is a {kind} model, not a gpt3 one. Convert it first: gpt3 import {folder} --out DIR"
        )
    weights, _, index = weight_files(folder)
    if not (folder / CARD).is_file():
        raise InputError(f"{folder} has no card ({CARD}): its run is unfinished. Finish it, or write a card there")
    names = [CONFIG, *SMALL_FILES, ORIGIN, *([WEIGHTS[1]] if index else [])]
    found = [folder / name for name in names if (folder / name).is_file()]
    return {path.name: path for path in [*found, *sorted(folder.glob("*.py")), *weights]}


def gguf_name(repository: str, dtype: str) -> str:
    """``NAME-Q8_0.gguf`` for the repository ``OWNER/NAME`` or ``OWNER/NAME-GGUF``."""
    name = re.sub("-gguf$", "", repository.partition("/")[2], flags=re.IGNORECASE)
    return f"{name}-{TAGS[dtype]}.gguf"


def llama_cpp_choice(names: Iterable[str], tag: str) -> str | None:
    """The file that llama.cpp's ``-hf OWNER/NAME:TAG`` takes from a repository with these files."""
    models = [name for name in sorted(names) if name.endswith(".gguf") and not any(word in name for word in SIDECARS)]
    return next((name for name in models if re.search(rf"{tag}[.-]", name, re.IGNORECASE)), None)


def check_names(repository: str, dtypes: Sequence[str], others: Collection[str] = ()) -> None:
    """Refuse GGUF files that llama.cpp would not find, or would find in place of another.

    Args:
        others: names of further files in the repository.

    Raises:
        InputError: naming the tag and the file that it would give.
    """
    names = {gguf_name(repository, dtype): TAGS[dtype] for dtype in dtypes}
    for name, tag in names.items():
        if (taken := llama_cpp_choice({*names, *others}, tag)) != name:
            raise InputError(
                f"llama.cpp's -hf {repository}:{tag} would take {taken or 'no file'}, not {name}: the tag is looked for anywhere "
                "in a name. Leave out one of --gguf, or give another name"
            )


def upload(
    files: Mapping[str, Path | bytes],
    repository: str,
    dtypes: Sequence[str],
    *,
    public: bool,
    overwrite: bool = False,
) -> tuple[str, list[str]]:
    """Send the files in one commit: a reader sees all of them or none. What the hub has already is not sent again.

    Weights and GGUF files of an earlier upload that have no successor are removed in the same commit; others stay.

    Args:
        files: by name in the repository; a path, or the content.
        dtypes: of the GGUF files among them.
        public: whether everyone may read it; an existing private repository becomes public.
        overwrite: publish also where the repository holds something else than a gpt3 model.

    Returns:
        The address of the repository, and the names of the files in it that are not ours.

    Raises:
        InputError: no token, one without permission, a name that the hub refuses, or a repository that holds something else or
            is public when `public` is not set.
        RunError: the network or the hub failed; the same command resumes.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    token = get_token()
    if token is None:
        raise InputError(
            "no Hugging Face token is set. Log in with hf auth login, or set HF_TOKEN to one that may write"
        )
    api = HfApi(token=token)
    try:
        existing = _existing(api, repository, public, overwrite)
        theirs = {file.rfilename for file in existing.siblings or ()} if existing else set()
        stale = {name for name in theirs - set(files) if _is_ours(name, repository)}
        others = sorted(theirs - set(files) - stale - NEUTRAL)
        check_names(repository, dtypes, others)
        if existing is None:
            api.create_repo(repository, private=not public)
        api.create_commit(
            repository,
            [
                *(CommitOperationAdd(name, value) for name, value in files.items()),
                *(CommitOperationDelete(name) for name in sorted(stale)),
            ],
            commit_message=f"Publish {repository.partition('/')[2]} with gpt3",
            parent_commit=existing.sha if existing else None,
        )
        if public and existing is not None and existing.private:
            api.update_repo_settings(repository, private=False)
    except InputError:
        raise
    except Exception as error:
        raise _explained(error, repository, token) from None
    return f"{api.endpoint}/{repository}", others


def _existing(api: Any, repository: str, public: bool, overwrite: bool) -> Any:
    """The hub's record of the repository; None where there is none.

    Raises:
        InputError: it holds something else than a gpt3 model and `overwrite` is not set, or is public when `public` is not set.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(repository)
    except RepositoryNotFoundError:
        for kind, name in (("dataset", "dataset"), ("space", "Space")):
            if api.repo_exists(repository, repo_type=kind):
                raise InputError(f"{repository} is a {name} on the hub. Give another name") from None
        return None
    names = {file.rfilename for file in info.siblings or ()} - NEUTRAL
    config = info.config
    if not config and CONFIG in names:  # the hub has not read the file yet
        config = read_json(Path(api.hf_hub_download(repository, CONFIG)))
    family = (config or {}).get("model_type")
    if names and family != "gpt3" and not overwrite:
        what = f"a {family} model" if family else f"other files ({some(sorted(names))})"
        raise InputError(f"{repository} exists and holds {what}. Give another name, or use --overwrite")
    if not info.private and not public:
        raise InputError(f"{repository} exists and is public. Add --public to publish there, or give another name")
    return info


def _is_ours(name: str, repository: str) -> bool:
    """Whether an earlier upload of ours wrote a file that, left there, would be of other weights."""
    written = {RESULTS, WEIGHTS[1], *(gguf_name(repository, dtype) for dtype in TAGS)}
    return name in written or re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", name) is not None


def _explained(error: Exception, repository: str, token: str) -> Exception:
    """What an error of the hub's library means to the user, in one line without the token."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    text = one_line(RuntimeError(str(error).replace(token, "***") or type(error).__name__))
    if isinstance(error, OfflineModeIsEnabled):
        return InputError("HF_HUB_OFFLINE turns the hub off. Unset it to publish")
    if is_passing(error):
        return RunError(f"{repository}: the upload was interrupted ({text}). Run the same command to resume")
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in (401, 403):
        return InputError(
            f"{repository}: the hub refuses the token ({text}). Log in with hf auth login as one who may write there"
        )
    if status in (409, 412):
        return RunError(f"{repository}: it was changed during the upload ({text}). Run the same command again")
    if status is not None or isinstance(error, ValueError):
        return InputError(f"{repository}: the hub refuses it ({text})")
    return error
