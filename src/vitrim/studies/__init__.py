"""The study: train full networks, analyse their attention, truncate them, compare."""
