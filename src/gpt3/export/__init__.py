"""Export: a GPT-3 in the formats that other programs run (docs/export.md)."""
