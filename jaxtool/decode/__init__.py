"""The resumable slot decoder on token ids. Knows no text, no tools and no rewards."""
