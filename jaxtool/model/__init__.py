"""The Flax policy as functions of explicit state. Knows no text, no sampling and no loss."""
