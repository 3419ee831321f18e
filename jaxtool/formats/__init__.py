"""Calls as a policy writes them: one module a format, each a pure function from a turn's text to calls.

Knows no tokenizer, no tools, no network.
"""
