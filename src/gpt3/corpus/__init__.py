"""Text on its way to the model: sources, documents, token shards, samples."""
