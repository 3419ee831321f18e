"""The loops, their configuration and the worker that answers problems.

Knows no study and no plan.
"""
