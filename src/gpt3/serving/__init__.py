"""A model behind HTTP: OpenAI's completions API, chat, metrics, and the Playground.

body ─ schema ─▶ checked request ─ completions, chat ─▶ PendingRequest ─ Worker ─▶ Decoder       one thread owns the engine
                                                          ◀─ pieces of text ─┘
"""
