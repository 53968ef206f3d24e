"""The report of a study: an HTML page, Markdown and LaTeX tables."""
