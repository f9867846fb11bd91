"""Files, progress, seeds, text, versions and names, for every room above."""
