"""Who may ask at all, and what anybody may: credentials, health, reflection."""
