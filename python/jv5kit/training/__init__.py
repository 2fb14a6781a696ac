"""Training: rows become batches, batches become losses, and a student learns from a teacher, then task by task."""
