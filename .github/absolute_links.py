"""Make the links and pictures of README.md absolute, so that a package index shows them.

    python .github/absolute_links.py ADDRESS REVISION    # ADDRESS: of the repository, such as https://host/owner/vitrim

The pages of the repository are at ADDRESS/blob/REVISION, its files at ADDRESS/raw/REVISION.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def absolute(text: str, address: str, revision: str) -> str:
    """Return Markdown whose pictures and links lead to the repository at `address`; links in the page stay."""

    def place(match: re.Match[str]) -> str:
        kind = "raw" if match["picture"] else "blob"
        return f"{match['picture']}[{match['text']}]({address.rstrip('/')}/{kind}/{revision}/{match['path']})"

    return re.sub(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#)(?P<path>[^)]+)\)", place, text)


if __name__ == "__main__":
    readme = Path(__file__).resolve().parents[1] / "README.md"
    readme.write_text(absolute(readme.read_text(encoding="utf-8"), *sys.argv[1:3]), encoding="utf-8")
