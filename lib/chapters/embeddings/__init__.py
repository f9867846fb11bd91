"""The chapter on embeddings: labels, measures of every run, t-SNE maps of a few, the claim."""
