"""Demonstrations for a cold start: written by a rewriting model, checked, or selected from runs.

Knows no jax, no model, no learner and no loop.
"""
