"""Prompts, calls, observations, answers and demonstrations as text.

Knows no jax, no network and no rewards.
"""
