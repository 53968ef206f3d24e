"""Records failed trials in `failed/`. The study continues with its other trials."""

from __future__ import annotations

import socket
import traceback
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from vitrim.files import parse_json, understood, write_json


@dataclass(frozen=True)
class Failure:
    """The record of one failed trial."""

    trial: str
    """Key of the trial."""
    title: str
    error: str
    """Class name of the exception."""
    message: str
    """Text of the exception, in one line."""
    traceback: str
    host: str
    time: str

    @classmethod
    def of(cls, key: str, title: str, error: BaseException) -> Failure:
        """Make the record of an exception."""
        return cls(
            key,
            title,
            type(error).__name__,
            one_line(str(error)),
            "".join(traceback.format_exception(error)),
            socket.gethostname(),
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def sentence(self) -> str:
        """Return which trial failed and why, in one line."""
        return f"{self.title}: {self.error}: {self.message}" if self.message else f"{self.title}: {self.error}"


def one_line(text: str) -> str:
    """Return the text of an error as one line of at most 500 characters.

    If the text contains a traceback from another process, return only the last line of the traceback.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        lines = lines[-1:]
    return " ".join(lines)[:500]


def place(out: Path, key: str) -> Path:
    """Return the path of the record of the trial `key`."""
    return out / "failed" / f"{key}.json"


def record(out: Path, failure: Failure) -> None:
    """Write the record of a failure."""
    write_json(place(out, failure.trial), asdict(failure))


def forget(out: Path, key: str) -> None:
    """Remove the record of the trial `key`, if there is one. Called before the trial runs again."""
    place(out, key).unlink(missing_ok=True)


def failures(out: Path) -> list[Failure]:
    """Return all recorded failures, sorted by trial key."""
    paths = sorted((out / "failed").glob("*.json"))
    with understood(out / "failed"):
        return [Failure(**parse_json(path)) for path in paths]
