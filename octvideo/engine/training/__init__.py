"""Training: the trainer, its steps, its records, and how a run resumes."""
