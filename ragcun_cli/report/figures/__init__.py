"""Plots of results, for print and for the page. matplotlib is optional: nothing else in `report` imports this."""
