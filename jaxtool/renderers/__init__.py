"""Prompts, calls, observations, answers and demonstrations as text. Plain Python. Knows no device and no reward."""
