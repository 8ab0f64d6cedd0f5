"""A model served by ``gpt3 serve``, asked with the package openai: one answer, a stream, and a conversation.

usage: python openai_client.py ["Your prompt"]   (GPT3_URL: the server; GPT3_API_KEY: its key, if it has one)
"""

import os
import sys

from openai import APIStatusError, OpenAI

url = os.environ.get("GPT3_URL", "http://127.0.0.1:8000")
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("GPT3_API_KEY", "none"))
models = client.models.list().data
if not models:
    sys.exit(f"the server has no model yet; open {url} and choose one")
model = models[0].id
prompt = sys.argv[1] if len(sys.argv) > 1 else "The sea was"

# with a seed both have the same text; fields that are not OpenAI's go into extra_body
options = {"model": model, "prompt": prompt, "max_tokens": 20, "seed": 1, "extra_body": {"top_k": 40}}
answer = client.completions.create(**options)
print(prompt + answer.choices[0].text)

print(prompt, end="")
for event in client.completions.create(**options, stream=True):
    print(event.choices[0].text, end="", flush=True)
print()

try:  # only a fine-tuned model has a chat template
    messages = [{"role": "user", "content": prompt}]
    reply = client.chat.completions.create(model=model, messages=messages, max_tokens=20)
    print(reply.choices[0].message.content)
except APIStatusError as error:
    print(error.message)
