"""Tools a policy may call, and the client of the sandbox server. Knows no jax, no model and no rewards."""
