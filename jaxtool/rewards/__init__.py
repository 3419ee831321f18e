"""From answers to scores, in plain Python. Knows no jax, no tokenizer and no network."""
