"""Data sets: find and check cases, divide them, turn volumes into slices and predictions back into volumes."""
