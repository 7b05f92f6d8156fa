"""What a run has on AWS: one module per kind of resource, and table.py, which lists them all."""
