"""Joins decoder, text and tools into trajectories, and trajectories into batches. Updates nothing."""
