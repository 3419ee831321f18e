"""jaxtool: reinforcement learning of tool use in JAX (ReTool and OTC-PO)."""
