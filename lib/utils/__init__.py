"""Files, progress, seeds, text, versions and names, for all other parts of the package."""
