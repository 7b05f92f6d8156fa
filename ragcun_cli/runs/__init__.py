"""The run folder: its file names, and a module for each file on the run's state. No torch."""
