"""What would stop an experiment on this machine, found before it starts.

`running.run_checks` goes through all of it: packages, devices, memory, disks, network, base models, data, and for each
recipe a short training that is killed and goes on.
"""
