"""What is known about a checkpoint (preprocessing, classes, split, training), and data prepared to go with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from vitrim.config.reading import explain
from vitrim.config.schema import DataConfig, TrainConfig
from vitrim.data.cache import PreparedData, SliceCache
from vitrim.data.cases import CaseSet
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.recipe import stored_recipe
from vitrim.data.split import Split
from vitrim.errors import ConfigurationError, DataError, InputError, WeightsError
from vitrim.files import read_json
from vitrim.models.network import Network
from vitrim.progress import Reporter


@dataclass(frozen=True)
class Provenance:
    """What is stored next to a checkpoint: preprocessing, classes, split, training settings. None where it is not."""

    data: DataConfig | None = None
    classes: dict[int, str] | None = None
    split: Split | None = None
    training: TrainConfig | None = None

    @property
    def roles(self) -> dict[str, str]:
        """Case to `train`, `validation` or `tuning`, as far as the split is known."""
        if self.split is None:
            return {}
        return {
            **dict.fromkeys(self.split.train, "train"),
            **dict.fromkeys(self.split.validation, "validation"),
            **dict.fromkeys(self.split.tuning, "tuning"),
        }


def read_provenance(checkpoint: Path) -> Provenance:
    """Read preparation.json and trial.json in the folder of a checkpoint. WeightsError if one is damaged."""
    recipe, path = stored_recipe(checkpoint), checkpoint / "trial.json"
    trial = read_json(path)
    try:
        split = trial["split"] if trial else {}
        return Provenance(
            recipe.data if recipe else None,
            recipe.classes if recipe else None,
            Split(tuple(split["train"]), tuple(split["validation"]), tuple(split.get("tuning", ()))) if trial else None,
            TrainConfig.model_validate(trial["training"]) if trial else None,
        )
    except ValidationError as error:
        raise WeightsError(f"{path}: {explain(error, TrainConfig)}") from error
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path} does not hold what vitrim writes there") from error


def new_folder(out: Path | str) -> Path:
    """The path `out`. ConfigurationError if something exists there."""
    if Path(out).exists():
        raise ConfigurationError(f"{out} exists already; choose another folder with --out")
    return Path(out)


def cases_for(
    checkpoint: Path, network: Network, provenance: Provenance, folder: Path, study: DataConfig | None
) -> tuple[DataConfig, CaseSet]:
    """Find the cases in `folder`, read as the checkpoint's study read them unless `study` says otherwise.

    Raises InputError if they do not fit the network: another image size, other channels, other classes.
    """
    config = study or provenance.data or DataConfig(image_size=network.config.image_size)
    if config.image_size != network.config.image_size:
        raise InputError(f"{checkpoint} takes images of {network.config.image_size}, not of {config.image_size}")
    cases = read_cases(config.model_copy(update={"phantom": None}), folder)
    channels = len(cases.channels)
    if channels != network.config.in_chans and not (channels == 1 and network.stem_channels == 3):
        raise DataError(
            f"{checkpoint} takes {network.config.in_chans} channel(s), {folder} has {channels}: "
            f"{', '.join(cases.channels)}"
        )
    if cases.num_classes != network.config.num_classes or (provenance.classes or cases.classes) != cases.classes:
        known = provenance.classes or dict.fromkeys(range(network.config.num_classes), "?")
        raise DataError(
            f"{checkpoint} has the classes {_named(known)}; {folder} has {_named(cases.classes)}: "
            f"they cannot be compared"
        )
    return config, cases


@contextmanager
def prepared_data(
    config: DataConfig, cases: CaseSet, ids: tuple[str, ...], near: Path, reporter: Reporter
) -> Iterator[PreparedData]:
    """Prepare the slices of some cases, in a hidden folder beside `near` that is removed afterwards."""
    preprocessing = Preprocessing.from_config(config)
    near.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{near.name}.", dir=near.parent) as scratch:
        with reporter.stage(f"prepare {len(ids)} cases", len(ids)) as stage:
            cache = SliceCache.build(
                cases, ids, preprocessing, Path(scratch), progress=lambda done, total: stage.advance(note=ids[done - 1])
            )
        yield PreparedData(config, cases, cache, preprocessing)


def _named(classes: dict[int, str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in sorted(classes.items()))
