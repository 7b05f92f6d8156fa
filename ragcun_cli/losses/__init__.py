"""Losses: pure functions of embeddings, in float32 regardless of autocast; none holds the model."""
