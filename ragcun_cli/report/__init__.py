"""Turn results on disk into tables, claims, figures and a page, without importing torch."""
