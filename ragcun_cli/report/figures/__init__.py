"""Plots of results, for print and for the page. matplotlib is an extra: nothing else of `report` imports this."""
