"""jaxtool: reinforcement learning of tool use in JAX (ReTool and OTC-PO)."""

__version__ = "0.1.0"  # of the distribution, which holds the two servers as well
