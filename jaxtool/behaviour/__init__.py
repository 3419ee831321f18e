"""How a policy uses its tools: measures of answers' records, each one equation.

Knows no jax, no model and no loss.
"""
