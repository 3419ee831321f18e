"""Answers to scores, in plain Python. Knows no tokens, no tokenizer and no device."""
