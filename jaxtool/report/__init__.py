"""HTML pages from the files of a run. Knows no jax, no model and no loop."""
