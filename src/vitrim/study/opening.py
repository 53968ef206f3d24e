"""The folder of a study, held by this process alone, with the study's data ready in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitrim.config import StudyConfig
from vitrim.errors import InputError
from vitrim.progress import Reporter
from vitrim.study.folder import begin, check_claim, claim, is_begun_only, sweep
from vitrim.study.lock import locked
from vitrim.study.prepare import Prepared, prepare
from vitrim.study.status import Status


@contextmanager
def opened(study: StudyConfig, source: Path | None, out: Path, reporter: Reporter) -> Iterator[Prepared]:
    """Hold the folder `out` for `study`, whose device and precision are resolved, and prepare its data there.

    InputError if the folder holds something else or another process has it, or for what is wrong with the data; then a
    folder that this made is removed.
    """
    check_claim(out, study)
    with locked(out):
        check_claim(out, study)  # another process may have been there meanwhile
        sweep(out)
        begin(out, study)
        Status(out).write()  # who asks is told which process this is
        with _removed_on_bad_input(out):
            prepared = prepare(study, source, out, reporter)
            claim(out, study, prepared.data.cache.fingerprint)
        yield prepared


@contextmanager
def _removed_on_bad_input(out: Path) -> Iterator[None]:
    """Leave nothing half-written behind when the input turns out to be unusable."""
    try:
        yield
    except InputError:
        if is_begun_only(out):
            shutil.rmtree(out, ignore_errors=True)
        raise
