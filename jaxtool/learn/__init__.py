"""Updates parameters from packed batches. Knows no text, no tools and no rewards."""
