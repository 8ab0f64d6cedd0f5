"""Text to ids and back: GPT-2's byte-level BPE offline, and byte-level BPEs trained on your own text."""
