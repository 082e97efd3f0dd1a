"""The loop: batches, optimiser, checkpoints, progress. Knows no objective by name."""
