"""From results on disk to a table. No torch here."""
