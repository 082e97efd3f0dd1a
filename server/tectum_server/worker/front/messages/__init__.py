"""Messages as bytes: counted, unpacked, and made numpy."""
