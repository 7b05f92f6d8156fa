"""Losses: pure functions of embeddings, in float32 whatever the autocast; none holds the model."""
