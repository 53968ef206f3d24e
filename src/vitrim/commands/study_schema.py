"""`vitrim study schema`: all keys of a study's file, for editors and for readers."""

from __future__ import annotations

from pathlib import Path

from vitrim.config.key_reference import as_text, json_schema, markdown_page
from vitrim.files import write_new_text


def study_schema(*, markdown: bool = False, out: str | Path | None = None) -> str:
    """Return all keys of a study's file as the text of a JSON schema, or of a Markdown page.

    The same as the command `vitrim study schema`.

    Args:
        markdown: a page of tables in place of the schema.
        out: also write the text to this file. An existing file is only replaced by the same text.

    Raises:
        InputError: if `out` exists and holds another text.

    Example:
        >>> import json, vitrim
        >>> json.loads(vitrim.study_schema())["title"]
        'vitrim study'
    """
    text = markdown_page() if markdown else as_text(json_schema())
    if out is not None:
        write_new_text(Path(out), text)
    return text
