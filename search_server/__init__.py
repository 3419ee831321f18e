"""Passages for queries over HTTP, in Search-R1's protocol. Stands alone: knows neither jaxtool nor jax."""
