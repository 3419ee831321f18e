"""What is right: answers found in text and compared with references. Knows no jax, no model, no tokenizer and no rewards."""
