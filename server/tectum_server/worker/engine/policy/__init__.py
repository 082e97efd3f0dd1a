"""Who is let in, who runs next and with whom: bookkeeping alone, with no clock and no thread."""
