"""Says what was found: answer, tables, plots, page."""
