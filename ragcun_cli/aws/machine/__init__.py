"""What runs on the machine: boot.sh (user data) installs ragcun and starts supervisor.py, which does the rest."""
