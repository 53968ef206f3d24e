"""Compression: which blocks to keep, how many, and what that costs and saves."""
