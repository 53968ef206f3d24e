"""Trainings that failed: each leaves a record in `failed/`, and the others go on."""

from __future__ import annotations

import json
import socket
import traceback
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from vitrim.files import write_json


@dataclass(frozen=True)
class Failure:
    """What went wrong with one trial."""

    trial: str
    """Its key."""
    title: str
    error: str
    """The exception's class."""
    message: str
    """The exception's text, in one line."""
    traceback: str
    host: str
    time: str

    @classmethod
    def of(cls, key: str, title: str, error: BaseException) -> Failure:
        """Describe an exception."""
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
        """Which failed and why, in one line."""
        return f"{self.title}: {self.error}: {self.message}" if self.message else f"{self.title}: {self.error}"


def one_line(text: str) -> str:
    """An error's text; of one that came from another process with its traceback, the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        lines = lines[-1:]
    return " ".join(lines)[:500]


def place(out: Path, key: str) -> Path:
    """Where the record of a trial lies."""
    return out / "failed" / f"{key}.json"


def record(out: Path, failure: Failure) -> None:
    """Keep a failure."""
    write_json(place(out, failure.trial), asdict(failure))


def forget(out: Path, key: str) -> None:
    """Remove a trial's record: it is tried again, or has succeeded."""
    place(out, key).unlink(missing_ok=True)


def failures(out: Path) -> list[Failure]:
    """All that are recorded, in the order of their keys."""
    return [Failure(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted((out / "failed").glob("*.json"))]
