"""`vitrim study new`: a study of one's own that fits a data set and this machine."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from vitrim.config.names import LayoutName
from vitrim.config.reading import checked_name, parse_study
from vitrim.data.cases import Case, CaseSet
from vitrim.data.readers import read_cases
from vitrim.data.sampling import evenly_spaced
from vitrim.data.split import study_splits
from vitrim.data.survey import Look, find_data, look_at, over_cases, prepare
from vitrim.errors import DataError, InputError
from vitrim.files import write_new_text
from vitrim.progress import Reporter
from vitrim.studies.proposal import CPU_SIZES, GPU_SIZES, Choice, data_choices, data_section, propose

CASES = 10
"""Number of cases that are read."""


@dataclass(frozen=True)
class NewStudy:
    """A study that was written: `path` is its file."""

    path: Path
    command: str
    """The command that runs it"""
    facts: tuple[str, ...]
    """What the data set holds, one line each"""
    choices: tuple[Choice, ...]
    """Every key of the study, its value, and why it has it"""
    errors: tuple[str, ...]
    """What would stop the study, in the cases that were read"""
    warnings: tuple[str, ...]
    """What may be intended in them, but should be known"""


def study_new(
    data: str | Path,
    out: str | Path | None = None,
    *,
    layout: LayoutName | None = None,
    reporter: Reporter | None = None,
) -> NewStudy:
    """Look at a data set, and write a study that fits it and this machine as a commented YAML file.

    The same as the command `vitrim study new`. Ten cases are read; `vitrim data check FILE DIR` reads all of them.

    Args:
        data: folder with the data set, in any layout and format that vitrim reads.
        out: the new file; `NAME.yaml` in the current folder by default, with the name of the data folder. An existing
            file is never overwritten.
        layout: how the files lie, if the folder can be read in several ways.

    Raises:
        InputError: if the folder holds no data set, too few cases or cases that cannot be read, or if `out` exists.

    Example:
        >>> import vitrim
        >>> new = vitrim.study_new("data", "mine.yaml")
        >>> print(new.command)
        vitrim study mine.yaml --data data
    """
    reporter = reporter or Reporter()
    if layout is not None:
        checked_name(layout, LayoutName, "layout")
    folder = Path(data)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "study"
    path = Path(f"{name}.yaml") if out is None else Path(out)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file with --out")
    found = find_data(folder, layout)
    chosen = evenly_spaced(found.cases.labelled, CASES)
    with reporter.stage(f"look at {len(chosen)} of {len(found.cases.labelled)} cases", 2 * len(chosen)) as stage:
        seen = over_cases(lambda case: _look(case, found.cases), chosen, stage.advance)
        looks = [look for look in seen if isinstance(look, Look)]
        if not looks:
            raise DataError(str(seen[0]))
        choices = data_choices(found, looks)
        config, sizes = data_section(choices), sorted({*GPU_SIZES, *CPU_SIZES})
        cases = read_cases(config, folder, strict=False)
        readable = [case for case, look in zip(chosen, seen, strict=True) if isinstance(look, Look)]
        prepared = over_cases(lambda case: prepare(case, cases, config, sizes), readable, stage.advance)
    usable = [one for one in prepared if one.slices]
    if not usable:
        raise DataError(prepared[0].errors[0])
    proposal = propose(name, cases, looks, usable, choices)
    command = f"vitrim study {shlex.quote(str(path))} --data {shlex.quote(str(data))}"
    text = proposal.text(command)
    study_splits(cases, parse_study(text, str(path)))  # what is written can be run
    write_new_text(path, text)
    unread = [str(look) for look in seen if not isinstance(look, Look)]
    return NewStudy(
        path,
        command,
        proposal.facts,
        proposal.choices,
        errors=(*cases.problems, *unread, *(line for one in prepared for line in one.errors)),
        warnings=(*cases.unused, *(line for one in prepared for line in one.warnings)),
    )


def _look(case: Case, cases: CaseSet) -> Look | InputError:
    """Look at a case, or return what is wrong with it."""
    try:
        return look_at(case, cases)
    except InputError as error:
        return error
