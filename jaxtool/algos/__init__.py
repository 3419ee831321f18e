"""Advantages and losses: arrays in, arrays out. Knows no model, no config and no text."""
