"""Find what would stop an experiment on this machine, before it starts.

`running.run_checks` checks packages, devices, memory, disks, network, base models and data, and for each
recipe runs a short training, which it kills and resumes.
"""
