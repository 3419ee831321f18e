"""Text and problems: tokenizers, protocols, problem sets. Knows no device and no reward."""
