"""The one exception that a user is meant to read."""

from __future__ import annotations


class InputError(Exception):
    """Something that came in from outside cannot be used.

    The message is one line: what is wrong, where, and what to do. The command line prints it and exits with status 2.
    """
