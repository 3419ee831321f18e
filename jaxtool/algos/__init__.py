"""Advantages and losses: arrays in, arrays out. Knows no model, no text and no configuration."""
