"""Convert licensed BEIR sets, as delivered by their owners, to BEIR's layout."""
