"""What a batch is to the predictor: its pictures, its masks, its passes, its numbers."""
