"""A Python sandbox for untrusted code over gRPC. Stands alone: knows neither jaxtool nor jax."""

__version__ = "0.1.0"
