"""ragcun: test whether making embeddings isotropic makes dense retrieval better."""

__version__ = "0.1.0"
