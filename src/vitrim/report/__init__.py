"""The report: what a study found, as a page to look at and as Markdown to paste."""
