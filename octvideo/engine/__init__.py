"""Training, evaluation, checkpoints and processes. Knows no model and no config."""
