"""The command line: parses, calls, prints. Nothing here is slow to import, so that help is instant.

The modules are imported in the order in which `vitrim --help` lists their commands.
"""

from vitrim.cli import study, networks, predict, data  # noqa: I001
from vitrim.cli.root import app, main

__all__ = ["app", "data", "main", "networks", "predict", "study"]
