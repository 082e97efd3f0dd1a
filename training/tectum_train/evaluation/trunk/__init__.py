"""What a frozen trunk tells: of tasks, of sentences, of where the hand is, of what to do next."""
