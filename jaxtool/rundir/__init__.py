"""What a run leaves on disk and on the screen. Knows no rewards, no losses and no sampling."""
