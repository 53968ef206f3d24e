"""The configuration: names that a user may type, what a configuration may hold, and how it is read."""
