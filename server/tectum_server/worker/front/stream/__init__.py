"""StreamPerception: what a camera sends, what is answered, and in which order."""
