"""Updates parameters from TrainBatches. Knows no text, no tools and no rewards."""
