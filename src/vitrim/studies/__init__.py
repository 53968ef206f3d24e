"""The study: train, look at the attention, cut, compare."""
