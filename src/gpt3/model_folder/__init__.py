"""The model folder: finding, loading, converting, writing and describing it (docs/model.md, docs/import.md)."""
