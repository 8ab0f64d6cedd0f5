"""The final model folder, taken out of the run's last checkpoint: the same for one process and for shards of many."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

WEIGHTS = re.compile(r"(?P<set>\w+)(-\d+(-of-\d+)?)?\.safetensors(?P<index>\.index\.json)?")
RUN_STATE = frozenset({"state.json", "manifest.json"})


def extract_model(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint's model folder to `folder`, which is made.

    The weights are their moving average (``ema.safetensors``) where the checkpoint holds one; both go by the parameters' names.
    """
    averaged = any(checkpoint.glob("ema*.safetensors"))
    folder.mkdir(parents=True)
    for path in checkpoint.iterdir():
        match = WEIGHTS.fullmatch(path.name)
        if match is None:
            if path.name not in RUN_STATE:
                shutil.copyfile(path, folder / path.name)
        elif match["set"] == ("ema" if averaged else "model"):
            target = folder / f"model{path.name.removeprefix(match['set'])}"
            if match["index"]:  # transformers' list of which tensor is in which file
                text = path.read_text(encoding="utf-8")
                target.write_text(text.replace(f'"{match["set"]}-', '"model-'), encoding="utf-8")
            else:
                shutil.copyfile(path, target)
