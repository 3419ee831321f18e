"""Machines: what a host lacks before a run, and a run on slices that an engine of others makes.

Knows no loss, no sampling and no text.
"""
