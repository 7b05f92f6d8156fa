"""Download files: resumable, verified before they get their final names, and never left half-written."""
