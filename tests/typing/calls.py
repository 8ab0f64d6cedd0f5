"""Checked by mypy, never run: what typed code may call, and what it may not (an ignore that is not needed is an error)."""

import gpt3

gpt3.train(steps=3, data=["wiki"])
gpt3.train(stepz=3)  # type: ignore[call-arg]
gpt3.train(steps="three")  # type: ignore[arg-type]
gpt3.finetune(method="dpo", lora=True)
gpt3.finetune(method="ppo")  # type: ignore[arg-type]
gpt3.serve(port=8000)
print(gpt3.evaluate(model=["runs/demo"], limit=3)[0].results)
gpt3.evaluate(limit="three")  # type: ignore[arg-type]
gpt3.serve(port="http")  # type: ignore[arg-type]
folder = gpt3.train(model="demo").folder
text: str = gpt3.load("runs/demo").complete("The history of", max_new_tokens=5)[0].text
