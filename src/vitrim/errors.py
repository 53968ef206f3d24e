"""The errors that a user is meant to read: one base class, and one subclass for each kind of input."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` without control characters: what comes from a file must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def by_interrupt(error: BaseException | None) -> bool:
    """Whether an exception is the consequence of an interrupt: raised while one was handled, by Ctrl-C or a signal."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


class InputError(Exception):
    """Input from outside vitrim cannot be used.

    The message is one line that says what is wrong, where, and what to do. The command line prints the message and
    exits with status 2. Catch this class to handle every kind of bad input; catch a subclass to tell them apart.

    Example:
        >>> import vitrim
        >>> try:
        ...     vitrim.create_model("transunet", num_classes=1)
        ... except vitrim.InputError as error:
        ...     print(type(error).__name__)
        ConfigurationError
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigurationError(InputError):
    """A configuration, an option or an argument has a value that is not possible.

    Example:
        >>> import vitrim
        >>> issubclass(vitrim.ConfigurationError, vitrim.InputError)
        True
    """


class DataError(InputError):
    """A data set, a case, an image or a label map cannot be used.

    Example:
        >>> import vitrim
        >>> try:
        ...     vitrim.check_data("decathlon", "no/such/folder")
        ... except vitrim.DataError as error:
        ...     print(error)
        no such data folder: no/such/folder
    """


class WeightsError(InputError):
    """A checkpoint, a file of weights or a decision about a network cannot be used.

    Example:
        >>> import vitrim
        >>> try:
        ...     vitrim.load_model("no/such/checkpoint")
        ... except vitrim.WeightsError as error:
        ...     print(error)
        no network in no/such/checkpoint: it does not exist
    """
