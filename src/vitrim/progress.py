"""Showing that long work moves: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training is: steps done of how many, the epoch that the last one belongs to, and its loss."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float

    def sentence(self) -> str:
        """Epoch and loss, in a few words."""
        return f"epoch {self.epoch} of {self.epochs}  loss {self.loss:.3f}"


Watch = Callable[[TrainingProgress], None]
"""Is told where a training is."""


class Stage:
    """One piece of work with a known number of steps."""

    def __init__(self, say: Console, title: str, total: int, bar: Progress | None) -> None:
        self._say, self._title, self._total, self._bar = say, title, total, bar
        self._task = bar.add_task(title, total=total) if bar else None
        self._done = 0
        self._last = time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` as done; `note` (a loss, a case) stands behind the title."""
        self._done += steps
        title = f"{self._title}  {note}" if note else self._title
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps, description=title)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._say.print(f"  {title}  {self._done}/{self._total}", highlight=False)


def silent(total: int) -> Stage:
    """A stage that shows nothing."""
    return Stage(Console(quiet=True), "", total, None)


class Reporter:
    """Where a study says what it is doing."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Stage]:
        """Show the progress of one piece of work, and what it took once it is over."""
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
                yield Stage(self.console, title, total, bar)
        else:
            yield Stage(self.console, title, total, None)
        self.say(f"  {title}  {time.monotonic() - begin:.0f} s")
