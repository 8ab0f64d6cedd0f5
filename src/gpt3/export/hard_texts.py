"""Texts that byte-level tokenizers disagree on: spaces, line ends, scripts, emoji, marks, control characters, special tokens."""

from __future__ import annotations

HARD_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces,   three, and a trailing one ",
    "tabs\tand\t\ttabs\n\n\nlines\r\n\r\n  indented\n",
    "    def f(x):\n        return x ** 2  # code\n",
    " \n \n\t \n",
    "I'll we've they're don't 'tis o'clock 's 'S \u2019s",
    "3.14159 1,000,000 0x1F 2026-11-25 \u0661\u0662\u0663 \u00bd\u2167",
    "na\u00efve caf\u00e9 e\u0301\u0323 \u0130\u0131\u017f\u1e9e",
    "你好，世界。こんにちは 안녕하세요 \u3000 สวัสดี",
    "Привет Ἐν ἀρχῇ שלום مرحبا नमस्ते",
    "\U0001f389\U0001f389 \U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3fd \U0001f1e9\U0001f1ea \u2603\ufe0f",
    "\u00a0no-break\u00a0\u00a0spaces\u2003em\u2028line\u0085next",
    "\x01\x02\x1b[0m\x7f\u00ad\u200b\ufeff",
    "<|endoftext|> spelled <|im_start|>",
    "!!!???...---___***((([[[{{{<<<>>>}}}]]])))",
    "a" * 200 + " " * 100 + "\n" * 50,
)
