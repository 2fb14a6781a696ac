"""Training: settings, rows in, two stages, a student out. ``jv5kit train`` and ``jv5kit mine`` are made of it."""
