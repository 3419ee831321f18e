"""Words and arithmetic that all layers use. Knows no model, no text and no network."""
