"""Reading and writing files: every file and folder that is written appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrim.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

UNFINISHED = ".part"
"""Ending of the name of a file or folder that is being written. The name begins with a dot."""

TEXT_COLUMNS = ("network", "case", "class", "head", "role", "measure", "hd95_unit")
"""Columns of our tables that hold text, even where all values look like numbers."""


@contextmanager
def replacing(path: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`. On success it is renamed to `path`; on failure it is removed.

    This works for a file and for a folder. An existing folder at `path` is replaced; with `keep_existing` a folder that
    another process has put there in the meantime is kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}")
    try:
        yield temporary
        if keep_existing and path.exists():
            return
        if temporary.is_dir() and path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`. No other process may be writing there."""
    for path in folder.glob(f".*{UNFINISHED}"):
        remove(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`. NaN and infinity are refused (ValueError), because JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that vitrim wrote. An absent file gives an empty dictionary; InputError if it is damaged."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold what vitrim writes there")
    return content


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV with six decimals, whole or not at all."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that vitrim wrote. Only an empty field counts as missing, so that a class may be called NA.

    Raises InputError if the file cannot be read as a table.
    """
    import pandas as pd

    try:
        return pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from error


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as a compressed .npz file, whole or not at all."""
    import numpy as np

    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read the arrays of an .npz file. None if there is no such file; InputError if it cannot be read."""
    import zlib
    from zipfile import BadZipFile

    import numpy as np

    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
