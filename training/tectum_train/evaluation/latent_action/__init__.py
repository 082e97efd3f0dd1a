"""Whether a latent action says how the hand moved, and only that."""
