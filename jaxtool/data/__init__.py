"""Problems and tokenizers. Knows no jax, no network and no rewards."""
