"""Results on disk: a module for each kind of file, which writes and reads it; and the metrics. No torch."""
