"""A Python sandbox for untrusted code over gRPC. Stands alone: knows neither jaxtool nor jax."""
