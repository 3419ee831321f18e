"""Joins decoder, text and tools into trajectories, and these into batches.

Knows no learner and no loop.
"""
