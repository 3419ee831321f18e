"""What a run leaves on disk and on the screen. Knows no rewards, no loss and no sampling."""
