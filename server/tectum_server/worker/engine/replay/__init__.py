"""What came to an engine, kept and played back: the policy in a time that is counted."""
