"""Captures the attention of any model, measures it, and decides the depth from it."""
