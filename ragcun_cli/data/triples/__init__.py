"""Training triples: read in any shape that people keep them in, prepared once as memory-mapped Arrow columns."""
