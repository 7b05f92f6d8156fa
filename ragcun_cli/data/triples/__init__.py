"""Training triples: read from any common format and prepared once as memory-mapped Arrow columns."""
