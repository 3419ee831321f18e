"""Text and problems: tokenizers, renderers, problem sets. Knows no device and no reward."""
