"""Runs on EC2: estimate the cost, start a run, watch it, fetch its results, and leave nothing behind."""
