"""A model behind HTTP: OpenAI's completions API, chat, metrics, and the Playground.

request body ─ Gate ─ schema ─▶ Completion or Chat ─▶ Worker ─▶ Decoder     (one thread owns the engine)
response ◀─ Completion or Chat ◀──────────────── Delta ─┘
"""
