"""Reading and writing files: every file and folder that is written appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from vitrim.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_log = logging.getLogger(__name__)

UNFINISHED = ".part"
"""Ending of the name of a file or folder that is being written. The name begins with a dot."""

LOCK = ".lock"
"""Ending that follows `UNFINISHED` in the name of the lock of what is being written."""

SHORT = 80
"""Longest part of a file's name in the name of its unfinished form: a file system takes 255 bytes."""

LONGEST_REASON = 300
"""Most characters of another library's message in one of ours."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""A cell of text that begins so gets an apostrophe before it: a spreadsheet would run it as a formula."""

TEXT_COLUMNS = ("network", "case", "class", "head", "role", "measure", "hd95_unit")
"""Columns of our tables that hold text, even where all values look like numbers."""


@contextmanager
def replacing(path: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`. On success it is renamed to `path`; on failure it is removed.

    This works for a file and for a folder. An existing folder at `path` is replaced; with `keep_existing` a folder that
    another process has put there in the meantime is kept. Raises OSError, with the name `path`, if writing fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as temporary:
        try:
            yield temporary
        except OSError as error:
            if error.filename not in (None, str(temporary)):
                raise
            # some libraries do not say which file it was, and the temporary name tells the user nothing
            reason = error.strerror or f"writing failed ({error})"
            raise OSError(error.errno or errno.EIO, reason, str(path)) from error
        if keep_existing and path.exists():
            return
        if temporary.is_dir() and path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
        _log.info("wrote %s", path)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that nothing else uses, and remove what is there in the end.

    While this process lives it holds a lock on `NAME.lock` beside it. What a killed process left has no such lock; the
    next process that writes into the same folder removes it.
    """
    _sweep(path.parent)
    temporary = path.with_name(f".{path.name[:SHORT]}.{uuid.uuid4().hex[:12]}{UNFINISHED}")
    lock = FileLock(f"{temporary}{LOCK}", timeout=0)
    with suppress(NotImplementedError):  # a file system without locks; then nothing is swept there
        lock.acquire()
    try:
        yield temporary
    finally:
        remove(temporary)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in `folder`; once for each folder in a process."""
    place = folder.absolute()
    if place in _swept:
        return
    _swept.add(place)
    for path in folder.glob(f".*{UNFINISHED}{LOCK}"):
        lock = FileLock(path, timeout=0)
        # another process is writing it, or has just removed it
        with suppress(Timeout, OSError, NotImplementedError), lock:
            remove(path.with_name(path.name.removesuffix(LOCK)))
            path.unlink(missing_ok=True)


_swept: set[Path] = set()


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`. No other process may be writing there."""
    for path in (*folder.glob(f".*{UNFINISHED}"), *folder.glob(f".*{UNFINISHED}{LOCK}")):
        remove(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_new_text(path: Path, text: str) -> None:
    """Write `text` as `write_text` does. Raises InputError if `path` holds anything else already."""
    path = Path(path)
    if path.exists():
        try:
            same = path.read_text(encoding="utf-8") == text
        except (OSError, UnicodeDecodeError):
            same = False
        if same:
            return
        raise InputError(f"{path} exists and is never overwritten; choose another file with --out")
    write_text(path, text)


class Telling:
    """A file to write for libraries that hide why writing failed: they raise RuntimeError or a class of their own.

    Use it as a context. If a write failed, its OSError is raised in place of what the library raised.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes."""
        try:
            return self._file.write(data)
        except OSError as error:
            self._error = error
            raise

    def flush(self) -> None:
        """Write what is buffered."""
        self._file.flush()

    def __enter__(self) -> Telling:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        except OSError as error:
            self._error = self._error or error
        if self._error is not None:
            raise self._error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`. NaN and infinity are refused (ValueError), because JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that vitrim wrote. An absent file gives an empty dictionary; InputError if it is damaged."""
    if not path.is_file():
        return {}
    content = parse_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold what vitrim writes there")
    return content


def parse_json(path: Path, **options: Any) -> Any:
    """Read any JSON file. `options` go to `json.loads`. Raises InputError if it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), **options)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {short_reason(error)}") from error


@contextmanager
def understood(what: Path | str) -> Iterator[None]:
    """Inside, anything that goes wrong means that the files in `what` do not hold what vitrim writes there.

    For folders that anyone may have edited: whatever the damage raises becomes one InputError.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{what} does not hold what vitrim writes there ({short_reason(error)})") from error


def short_reason(error: BaseException) -> str:
    """Return the message of an error in one short line; its kind if it has none."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text[:LONGEST_REASON] if text else type(error).__name__


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV with six decimals, whole or not at all."""
    with replacing(path) as temporary:
        safe_cells(table).to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def safe_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text no spreadsheet takes for a formula (`FORMULA`). `plain_cells` reverses it."""

    def safe(cell: Any) -> Any:
        return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell

    texts = [name for name in table.columns if table[name].dtype.kind == "O" or table[name].dtype.name == "str"]
    return table.assign(**{name: table[name].map(safe) for name in texts})


def plain_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Reverse `safe_cells` in the columns of text (`TEXT_COLUMNS`)."""
    texts = [name for name in table.columns if name in TEXT_COLUMNS]
    return table.assign(**{name: table[name].map(_plain) for name in texts})


def _plain(cell: Any) -> Any:
    safe = isinstance(cell, str) and cell[:1] == "'" and cell[1:].startswith(FORMULA)
    return cell[1:] if safe else cell


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that vitrim wrote. Only an empty field counts as missing, so that a class may be called NA.

    Raises InputError if the file cannot be read as a table.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, na_values=[""])
    except MemoryError:
        raise
    except Exception as error:  # pandas raises many kinds
        raise InputError(f"{path} cannot be read as a table: {short_reason(error)}") from error
    return plain_cells(table)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as a compressed .npz file, whole or not at all."""
    import numpy as np

    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read the arrays of an .npz file. None if there is no such file; InputError if it cannot be read."""
    import numpy as np

    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except MemoryError:
        raise
    except Exception as error:  # zip, zlib and numpy raise many kinds
        raise InputError(f"{path} cannot be read: {short_reason(error)}") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
