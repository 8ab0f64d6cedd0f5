"""The model folder itself: loaded, run and trained by programs that do not have this package."""

from __future__ import annotations

import json

import pytest
import torch

from gpt3.model_folder.load import load_transformers
from without_gpt3 import python


def test_it_generates_and_trains_a_step_with_transformers_alone(saved, tokenizer, tmp_path):
    code = """
from transformers import pipeline
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
say = pipeline("text-generation", model=folder, trust_remote_code=True)
made = say("The sea", max_new_tokens=12, do_sample=False, return_full_text=False)[0]["generated_text"]
ids = tokenizer("Once upon a time there was a sea, and the ships on the sea were small.", return_tensors="pt")["input_ids"]
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model.train()
losses = []
for _ in range(3):
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(json.dumps([made, losses, "gpt3" in sys.modules]))
"""
    made, losses, ours = json.loads(python(code, tmp_path, str(saved)).splitlines()[-1])
    assert not ours
    assert losses[2] < losses[1] < losses[0]
    model, loaded = load_transformers(saved)
    prompt = loaded("The sea", return_tensors="pt")["input_ids"]
    text = model.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]
    assert made == loaded.decode(text)
    ids = torch.tensor([loaded("Once upon a time there was a sea, and the ships on the sea were small.")["input_ids"]])
    assert losses[0] == pytest.approx(float(model(ids, labels=ids).loss.detach()), rel=1e-5)
