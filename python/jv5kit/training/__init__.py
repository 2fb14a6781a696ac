"""Training: a student's forward pass with gradient, its adapters, and what a finished run becomes."""
