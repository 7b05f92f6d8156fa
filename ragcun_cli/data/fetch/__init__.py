"""Bringing files here: resumable, checked before they get their name, and never half."""
