"""What runs on the machine: boot.sh (user data), run.sh (the experiment), and what these two call."""
