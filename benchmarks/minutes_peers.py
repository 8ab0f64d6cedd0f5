"""What benchmarks/minutes.py gives its peers: their data folders, and the programs that train or score in their processes.

Each program prints as its last line, as JSON, the nats of every held-out set: all tokens of all documents, in consecutive
windows of the model's context.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from gpt3.tokenizer.gpt2 import gpt2_tokenizer

END = "\x00"


def nanogpt_data(checkout: Path, train: list[str], sets: dict[str, list[str]]) -> None:
    """nanoGPT's character-level folder: train.bin, val.bin (the first set), meta.pkl, and a file for each set."""
    folder = checkout / "data" / "minutes"
    if (folder / "meta.pkl").exists():
        return
    characters = sorted({END}.union(*(set(text) for texts in (train, *sets.values()) for text in texts)))
    index = np.zeros(0x110000, np.uint16)
    index[[ord(character) for character in characters]] = np.arange(len(characters))
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in {"train": train, "val": next(iter(sets.values())), **sets}.items():
        joined = "".join(text + END for text in texts).encode("utf-32-le")
        index[np.frombuffer(joined, np.uint32)].tofile(folder / f"{name}.bin")
    numbers = {character: number for number, character in enumerate(characters)}
    meta = {"vocab_size": len(characters), "stoi": numbers, "itos": dict(enumerate(characters))}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))  # nanoGPT's own format


def gpt2_data(texts: Path, sets: dict[str, list[str]]) -> None:
    """Each set's documents in GPT-2's tokens, each with its end, as a NumPy file: what Trainer and litGPT read."""
    tokenizer = gpt2_tokenizer()
    for name, documents in sets.items():
        if not (texts / f"{name}.npy").exists():
            ends = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in documents]
            np.save(texts / f"{name}.npy", np.concatenate(ends).astype(np.uint16))


def nanochat_data(base: Path, train: list[str], held_out: list[str]) -> None:
    """nanochat's parquet files, of which the last is its validation set. Long documents are cut: it cuts them off itself."""
    import pyarrow
    import pyarrow.parquet

    folder = base / "base_data_climbmix"
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [text[i : i + 2_000] for text in train for i in range(0, len(text), 2_000)]
    np.random.default_rng(1).shuffle(pieces)  # type: ignore[arg-type]
    for name, texts in (("shard_00000", pieces), ("shard_00001", held_out)):
        table = pyarrow.table({"text": texts})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=1024)


NANOGPT_SCORE = """
import json, sys, numpy as np, torch
from model import GPT, GPTConfig
saved = torch.load(sys.argv[1] + "/ckpt.pt", map_location="cpu")
model = GPT(GPTConfig(**saved["model_args"])); model.load_state_dict(saved["model"]); model.eval()
found = {}
for name in ("wiki", "novels"):
    data = torch.from_numpy(np.fromfile(f"data/minutes/{name}.bin", dtype=np.uint16).astype(np.int64))
    n, nats = (len(data) - 1) // 64, 0.0
    x, y = data[: n * 64].view(n, 64), data[1 : n * 64 + 1].view(n, 64)
    with torch.no_grad():
        for i in range(0, n, 64):
            nats += model(x[i : i + 64], y[i : i + 64])[1].double().item() * y[i : i + 64].numel()
    found[name] = nats / (n * 64) * (len(data) - 1)
print(json.dumps(found))
"""

NANOCHAT_SCORE = """
import json, sys, torch
sys.path.insert(0, ".")
from nanochat.checkpoint_manager import load_model
model, tokenizer, _ = load_model("base", torch.device("cpu"), phase="eval", model_tag=sys.argv[1])
start, found = tokenizer.get_bos_token_id(), {}
for name in ("wiki", "novels"):
    ids = []
    for line in open(f"{sys.argv[2]}/{name}.jsonl", encoding="utf-8"):
        ids += [start, *tokenizer.encode(json.loads(line)["text"])]
    ids.append(start)
    nats = 0.0
    with torch.no_grad():
        for i in range(0, len(ids) - 1, 512):
            piece = torch.tensor([ids[i : i + 513]])
            nats += model(piece[:, :-1], piece[:, 1:].contiguous(), loss_reduction="sum").double().item()
    found[name] = nats
print(json.dumps(found))
"""

TRAINER = """
import json, sys, time, numpy as np, torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
texts, work, steps, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ids = {name: torch.from_numpy(np.load(f"{texts}/{name}.npy").astype(np.int64)) for name in ("train", "wiki", "novels")}
rows = ids["train"][: len(ids["train"]) // 128 * 128].view(-1, 128)
torch.manual_seed(seed)
config = GPT2Config(n_positions=128, n_embd=192, n_layer=4, n_head=3, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
model = GPT2LMHeadModel(config)
arguments = TrainingArguments(
    work, max_steps=steps, per_device_train_batch_size=16, learning_rate=5e-4, seed=seed, report_to=[], save_strategy="no",
    logging_strategy="no", use_cpu=True, bf16=True, disable_tqdm=True,
)
began = time.perf_counter()
drawn = rows[torch.randperm(len(rows))[: steps * 16]]
Trainer(model, arguments, train_dataset=[{"input_ids": row, "labels": row} for row in drawn]).train()
found = {"seconds": time.perf_counter() - began}
model.eval()
for name in ("wiki", "novels") if "score" in sys.argv else ():
    data, nats = ids[name], 0.0
    with torch.no_grad():
        for i in range(0, len(data) - 1, 127):
            piece = data[i : i + 128]
            nats += model(piece[None], labels=piece[None]).loss.double().item() * (len(piece) - 1)
    found[name] = nats
print(json.dumps(found))
"""

LITGPT = """
import json, sys, time, numpy as np, torch
from pathlib import Path
from litgpt import pretrain
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule
texts, work, steps, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
ids = {name: torch.from_numpy(np.load(f"{texts}/{name}.npy").astype(np.int64)) for name in ("train", "wiki", "novels")}
SIZE, BATCH = 512, 16

class Encoded(DataModule):
    def connect(self, tokenizer=None, batch_size=1, max_seq_length=-1):
        self.batch_size = batch_size

    def loader(self, data):
        rows = data[: len(data) // (SIZE + 1) * (SIZE + 1)].view(-1, SIZE + 1)
        draw = torch.Generator().manual_seed(seed)
        return torch.utils.data.DataLoader(rows, self.batch_size, shuffle=True, generator=draw, drop_last=True)

    def train_dataloader(self):
        return self.loader(ids["train"])

    def val_dataloader(self):
        return self.loader(ids["novels"])

began = time.perf_counter()
pretrain.setup(
    "pythia-14m", out_dir=work, data=Encoded(), logger_name="csv", seed=seed,
    train=TrainArgs(
        save_interval=None, log_interval=50, global_batch_size=BATCH, micro_batch_size=BATCH, max_tokens=steps * BATCH * SIZE,
        max_norm=1.0, min_lr=4e-5, lr_warmup_steps=max(1, steps // 20), max_seq_length=SIZE, tie_embeddings=False,
    ),
    eval=EvalArgs(interval=10**9, max_iters=1, final_validation=False),
)
found = {"seconds": time.perf_counter() - began}
model = pretrain.GPT(pretrain.Config.from_name("pythia-14m"))
saved = torch.load(work / "final" / "lit_model.pth")["model"]
model.load_state_dict({name.removeprefix("_orig_mod."): tensor for name, tensor in saved.items()})
model.eval()
for name in ("wiki", "novels") if "score" in sys.argv else ():
    data, nats = ids[name], 0.0
    with torch.no_grad():
        for i in range(0, len(data) - 1, SIZE):
            piece = data[i : i + SIZE + 1]
            logits = model(piece[None, :-1])
            nats += torch.nn.functional.cross_entropy(logits[0].float(), piece[1:], reduction="sum").double().item()
    found[name] = nats
print(json.dumps(found))
"""
