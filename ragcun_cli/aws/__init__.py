"""A run on EC2: what it would cost, starting it, watching it, fetching its results, and leaving nothing behind."""
