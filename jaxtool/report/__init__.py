"""HTML pages from the files of a run. Knows no jax, no policy and no loop."""
