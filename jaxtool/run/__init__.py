"""What a person starts: runs, their configuration, checkpoints, metrics and reports."""
