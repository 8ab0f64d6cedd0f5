"""Fine-tuning and chat: conversations, samples, TRL's trainers, a conversation with a model."""
