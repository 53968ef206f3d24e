"""What lies beside a network's weights: how its data were prepared, what they show, which cases it was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from vitrim.config import DataConfig, TrainConfig, explain
from vitrim.data.cases import CaseSet
from vitrim.data.preprocess import Preparation
from vitrim.data.readers import read_cases
from vitrim.data.slices import SliceCache
from vitrim.data.split import Split
from vitrim.errors import InputError
from vitrim.evaluate import EvaluationData
from vitrim.inference.engine import stored_recipe
from vitrim.models.network import Network
from vitrim.progress import Reporter


@dataclass(frozen=True)
class Beside:
    """What is known of a checkpoint's past; an imported one has none."""

    data: DataConfig | None = None
    classes: dict[int, str] | None = None
    split: Split | None = None
    training: TrainConfig | None = None


def read_beside(checkpoint: Path) -> Beside:
    """Read preparation.json and trial.json in the folder of a checkpoint; InputError if one is damaged."""
    recipe, trial = stored_recipe(checkpoint), stored_json(checkpoint / "trial.json")
    try:
        split = trial["split"] if trial else {}
        return Beside(
            recipe.data if recipe else None,
            recipe.classes if recipe else None,
            Split(tuple(split["train"]), tuple(split["validation"]), tuple(split.get("tuning", ()))) if trial else None,
            TrainConfig.model_validate(trial["training"]) if trial else None,
        )
    except ValidationError as error:
        raise InputError(f"{checkpoint / 'trial.json'}: {explain(error)}") from error
    except (KeyError, TypeError) as error:
        raise InputError(f"{checkpoint / 'trial.json'} does not hold what vitrim writes there") from error


def stored_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file that vitrim wrote; empty where there is none, InputError where it is damaged."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold what vitrim writes there")
    return content


def cases_for(
    checkpoint: Path, network: Network, beside: Beside, folder: Path, layout: DataConfig | None
) -> tuple[DataConfig, CaseSet]:
    """Find the cases in `folder`, read as the checkpoint's study read them unless `layout` says otherwise.

    InputError where they do not go with the network: another image size, other channels, other classes.
    """
    config = layout or beside.data or DataConfig(image_size=network.config.image_size)
    if config.image_size != network.config.image_size:
        raise InputError(f"{checkpoint} takes images of {network.config.image_size}, not of {config.image_size}")
    cases = read_cases(config.model_copy(update={"phantom": None}), folder)
    channels = len(cases.channels)
    if channels != network.config.in_chans and not (channels == 1 and network.stem_channels == 3):
        raise InputError(
            f"{checkpoint} takes {network.config.in_chans} channel(s), {folder} has {channels}: "
            f"{', '.join(cases.channels)}"
        )
    if cases.num_classes != network.config.num_classes or (beside.classes or cases.classes) != cases.classes:
        known = beside.classes or dict.fromkeys(range(network.config.num_classes), "?")
        raise InputError(
            f"{checkpoint} knows the classes {_named(known)}; {folder} has {_named(cases.classes)}: "
            f"they cannot be compared"
        )
    return config, cases


def _named(classes: dict[int, str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in sorted(classes.items()))


@contextmanager
def prepared_slices(
    config: DataConfig, cases: CaseSet, ids: tuple[str, ...], near: Path, reporter: Reporter
) -> Iterator[EvaluationData]:
    """Prepare the slices of some cases for a while, in a hidden folder beside `near`."""
    preparation = Preparation.from_config(config)
    near.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{near.name}.", dir=near.parent) as scratch:
        with reporter.stage(f"prepare {len(ids)} cases", len(ids)) as stage:
            cache = SliceCache.build(
                cases, ids, preparation, Path(scratch), progress=lambda done, total: stage.advance(note=ids[done - 1])
            )
        yield EvaluationData(config, cases, cache, preparation)
