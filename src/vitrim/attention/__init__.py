"""Attention seen in any model, measured while it streams, and turned into a depth."""
