"""Data sources and how texts reach the model. Nothing here imports torch: only texts, ids and their order."""
