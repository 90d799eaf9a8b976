"""What a user touches, and what ties a run together: API, command line, config, checkpoints, metrics."""
