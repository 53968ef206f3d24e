"""From a folder on disk to slices that a network sees, and back to the grid they came from."""
