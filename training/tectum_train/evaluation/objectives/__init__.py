"""What a run's own objectives can do, as far as no bundle keeps it."""
