"""From what the owners of the licensed BEIR sets deliver to BEIR's layout."""
