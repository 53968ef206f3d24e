"""Compression: chooses which blocks to keep and how many, and measures cost and savings."""
