"""One file per kind of phantom: each draws one case, and knows nothing of files."""
