"""Metrics and trajectories of a run in W&B, MLflow or Trackio, beside its own files. Knows no loop."""
