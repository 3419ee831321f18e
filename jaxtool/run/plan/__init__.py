"""What a run will need on a TPU slice: its programs compiled ahead of time. Runs nothing."""
