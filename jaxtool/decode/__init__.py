"""The resumable decoder on token ids. Knows no text, no tools and no rewards."""
