"""A run on a slice that is not there: its programs, memory and time.

Knows no study and no rewards.
"""
