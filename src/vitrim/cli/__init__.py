"""The command line: parses, calls `vitrim.commands`, prints. Nothing here is slow to import, so that help is instant.

The modules are imported in the order in which `vitrim --help` lists their commands.
"""

from vitrim.cli import (  # noqa: I001
    study,
    study_new,
    study_schema,
    train,
    attention,
    compress,
    evaluate,
    import_transunet,
    predict,
    export,
    push,
    pull,
    report,
    data,
)
from vitrim.cli.root import app, main

__all__ = [
    "app",
    "attention",
    "compress",
    "data",
    "evaluate",
    "export",
    "import_transunet",
    "main",
    "predict",
    "pull",
    "push",
    "report",
    "study",
    "study_new",
    "study_schema",
    "train",
]
