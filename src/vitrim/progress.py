"""Show the progress of long work: a bar on a terminal, otherwise a line at most every 10 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vitrim.errors import printable

SECONDS_BETWEEN_LINES = 10.0
"""Shortest time in seconds between two progress lines without a terminal, or two calls of a listener."""

Listener = Callable[[str], None]
"""A function that gets what is being done now: title and count of a stage."""


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training: number of steps done, number of all steps, and epoch and loss of the last step."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float

    def sentence(self) -> str:
        """Return epoch and loss as text for the user."""
        return f"epoch {self.epoch} of {self.epochs}  loss {self.loss:.3f}"


Watch = Callable[[TrainingProgress], None]
"""A function that gets the progress of a training."""


class Stage:
    """A task with a known number of steps, and its progress display."""

    def __init__(
        self, say: Console, title: str, total: int, bar: Progress | None, listener: Listener | None = None
    ) -> None:
        self._say, self._title, self._total, self._bar, self._listener = say, printable(title), total, bar, listener
        self._task = bar.add_task(escape(self._title), total=total) if bar else None
        self._done = 0
        self._last = self._told = time.monotonic()
        if listener is not None:
            listener(self._title)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more steps as done and update the display. `note`, for example a case id, follows the title."""
        self._done += steps
        title = f"{self._title}  {printable(note)}" if note else self._title
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps, description=escape(title))
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._say.print(f"  {title}  {self._done}/{self._total}", highlight=False, markup=False)
        if self._listener is not None and time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._listener(f"{title}  {self._done}/{self._total}")
            self._told = time.monotonic()


def silent(total: int) -> Stage:
    """Return a stage that shows nothing."""
    return Stage(Console(quiet=True), "", total, None)


class Reporter:
    """Prints messages on a console, and progress unless `progress` is false. A `listener` is told of the progress."""

    def __init__(self, console: Console | None = None, progress: bool = True, listener: Listener | None = None) -> None:
        self.console = console or Console(soft_wrap=True)
        self.progress, self.listener = progress, listener

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(printable(text), highlight=False, markup=False)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Stage]:
        """Show the progress of a task of `total` steps. When it is complete, print its duration in seconds."""
        if not self.progress:
            yield Stage(Console(quiet=True), title, total, None, self.listener)
            return
        begin = time.monotonic()
        if self.console.is_terminal:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self.console, transient=True) as bar:
                yield Stage(self.console, title, total, bar, self.listener)
        else:
            yield Stage(self.console, title, total, None, self.listener)
        self.say(f"  {title}  {time.monotonic() - begin:.0f} s")
