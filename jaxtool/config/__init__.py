"""Strict gin files: from bindings to checked, frozen objects. Knows no jax and no jaxtool."""
