"""Which models there are: found, loaded, held to their golden outputs, warmed up, dropped."""
