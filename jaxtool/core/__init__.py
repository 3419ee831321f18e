"""Words and arithmetic that all layers use. Knows no model, no text rules and no network."""
