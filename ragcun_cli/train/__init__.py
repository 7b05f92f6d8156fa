"""Training one arm: plan, run folder, loop, checkpoints."""
