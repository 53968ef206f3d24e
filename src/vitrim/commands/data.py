"""`vitrim data check` and `vitrim data phantom`: look at a data set before training, or make one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from vitrim.config.names import LayoutName, PhantomLayout, PhantomName
from vitrim.config.reading import checked_name, explain, load_study, presets
from vitrim.config.schema import DataConfig, PhantomConfig
from vitrim.data.check import Findings, check_cases
from vitrim.data.phantoms.make import write_phantom
from vitrim.data.readers import read_cases
from vitrim.data.split import counted, study_splits
from vitrim.errors import ConfigurationError, InputError
from vitrim.progress import Reporter


def check_data(
    layout: LayoutName | str | Path,
    folder: str | Path,
    *,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Findings:
    """Read a data set once and list what it holds, and everything that is wrong with it.

    The same as the command `vitrim data check`. Nothing is raised for a bad case: see `errors` and `warnings` of what
    is returned.

    Args:
        layout: decathlon, ibsr18, emidec, synapse or pictures; or a study, whose split is checked too.
        out: a file for the findings, as JSON.

    Raises:
        InputError: if there is no such layout, study or folder.

    Example:
        >>> import vitrim
        >>> findings = vitrim.check_data("decathlon", "data")
        >>> len(findings.cases), findings.errors
        (8, [])
    """
    plain = layout in get_args(LayoutName) and layout not in presets()
    asked = None if plain else load_study(layout)
    config = asked.data if asked else DataConfig.model_validate({"layout": layout})
    reporter = reporter or Reporter()
    cases = read_cases(config, Path(folder), strict=False)
    with reporter.stage(f"check {len(cases.cases)} cases", len(cases.cases)) as stage:
        findings = check_cases(cases, config, progress=lambda done, total: stage.advance())
    if asked is not None:
        try:
            findings.split = counted(study_splits(cases, asked))
        except InputError as error:
            # the name of a preset may stand for its layout alone; a file of one's own is meant to be run
            blamed = findings.warnings if str(layout) in presets() else findings.errors
            blamed.append(f"the study {asked.name} cannot divide these cases: {error}")
            findings.divided = False
    if out is not None:
        findings.save(Path(out))
    return findings


def make_phantom(
    kind: PhantomName,
    folder: str | Path,
    *,
    layout: PhantomLayout = "decathlon",
    cases: int = 10,
    seed: int = 0,
    hops: int = 1,
    places: int | None = None,
    balanced: bool = True,
    noise: float = 1.0,
    bias_field: float = 0.0,
    spacing: tuple[float, float, float] | None = None,
    orientation: str = "RAS",
    reporter: Reporter | None = None,
) -> Path:
    """Write a seeded phantom data set into the new folder `folder`, and return it.

    The same as the command `vitrim data phantom`.

    Args:
        kind: what to imitate: brain, cardiac, abdomen; or a control: longrange, chain (`vitrim.data.phantoms`).
        layout: how it is written; not every kind is written in every layout.
        hops: longrange: marks to follow to an object's class; chain: links, 1 to 3.
        places: longrange: places for objects and marks, an even number (12); chain: patches in use (16).
        balanced: longrange and chain: as many objects of one class as of the other in a scene.
        noise: factor on the noise.
        bias_field: how much brighter one side is; 0.3 is usual in MRI.
        spacing: voxel size in mm.
        orientation: how the arrays run, such as RAS or LPS.

    Raises:
        InputError: for anything that is wrong with these.

    Example:
        >>> import vitrim
        >>> folder = vitrim.make_phantom("cardiac", "phantom", cases=2)
        >>> sorted(path.name for path in folder.iterdir())
        ['dataset.json', 'imagesTr', 'labelsTr']
    """
    checked_name(layout, PhantomLayout, "layout")
    options: dict[str, Any] = {
        "kind": kind,
        "cases": cases,
        "seed": seed,
        "hops": hops,
        **({} if places is None else {"places": places}),
        "balanced": balanced,
    }
    options |= {"noise": noise, "bias_field": bias_field, "spacing": spacing, "orientation": orientation}
    try:
        config = PhantomConfig.model_validate(options)
    except ValidationError as error:
        raise ConfigurationError(explain(error, PhantomConfig)) from error
    with (reporter or Reporter()).stage(f"draw {cases} cases", cases) as stage:
        return write_phantom(config, Path(folder), layout, progress=lambda done, total: stage.advance())
