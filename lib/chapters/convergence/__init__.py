"""The chapter on convergence: how soon a run is as good as the fixed loss gets."""
