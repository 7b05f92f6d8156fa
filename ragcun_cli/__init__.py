"""ragcun: does making embeddings isotropic make dense retrieval better?"""

__version__ = "0.1.0"
