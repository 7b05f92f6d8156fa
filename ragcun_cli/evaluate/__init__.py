"""Scoring a model: datasets, encoding, exact search, metrics, isotropy, and results on disk."""
