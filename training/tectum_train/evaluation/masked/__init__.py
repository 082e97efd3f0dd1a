"""What was hidden, filled in: pictures, words, clips, actions, codes."""
