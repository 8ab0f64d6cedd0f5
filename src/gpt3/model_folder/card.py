"""The README.md of an imported model folder."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpt3.model_folder.fetch import CARD

if TYPE_CHECKING:
    from gpt3.model_folder.convert import Checkpoint

FRONT_MATTER = re.compile(r"---\n(.*?)\n---", re.DOTALL)
LICENCE = re.compile(r"^license(?:_name|_link)?: *\S.*$", re.MULTILINE)


def card(checkpoint: Checkpoint, source: str) -> str:
    """Markdown with Hugging Face's front matter: what was imported, how to run it, the licence if the source names one."""
    config = checkpoint.config
    banded = sum(kind == "sliding_attention" for kind in config.layer_types)
    window = f", window {config.sliding_window}" if banded else ""
    head = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [gpt3]", *_licence(checkpoint)]
    notes = "".join(f"- {note}\n" for note in checkpoint.notes) or "- nothing had to change but names and layout\n"
    matter = "\n".join(head)
    return f"""---
{matter}
---
# {source}, as a gpt3 model

The weights of {source} ({checkpoint.blueprint.family}), imported with the gpt3 package. They compute what they did there;
who trained them, on what, and what they may be used for, the source says. `origin.json` holds the sha256 of its files.

| | |
|---|---|
| layers, width, heads | {config.num_hidden_layers}, {config.hidden_size}, {config.num_attention_heads} |
| attention | {config.num_hidden_layers - banded} dense and {banded} banded layers{window} |
| context, vocabulary | {config.max_position_embeddings}, {config.vocab_size:,} |

{notes}
## Run it

```sh
gpt3 generate --model PATH_OF_THIS_FOLDER "The history of"
```

Without the package: `transformers.AutoModelForCausalLM.from_pretrained(PATH, trust_remote_code=True)`.
"""


def _licence(checkpoint: Checkpoint) -> list[str]:
    path = checkpoint.folder / CARD
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    match = FRONT_MATTER.match(text)
    return LICENCE.findall(match[1]) if match else []
