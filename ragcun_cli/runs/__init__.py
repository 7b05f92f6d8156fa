"""The folder of a run: its names, and a module for each file that says how the run stands. No torch."""
