"""What is known about a checkpoint (preprocessing, classes, split, training), and data prepared to go with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitrim.config.reading import Study, explain, load_study
from vitrim.config.schema import DataConfig, TrainConfig
from vitrim.data.cache import PreparedData, SliceCache
from vitrim.data.cases import CaseSet
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.readers.synapse import is_release
from vitrim.data.recipe import not_prepared, stored_recipe, unnamed
from vitrim.data.split import Split, split_cases
from vitrim.errors import ConfigurationError, DataError, InputError, WeightsError
from vitrim.files import read_json, unfinished, write_json
from vitrim.models.adapt import Adapted
from vitrim.models.network import Network
from vitrim.progress import Reporter

TRIAL, IMPORT, RECOVERY = "trial.json", "import.json", "recovery.json"
"""Records beside a checkpoint of the training in a study, of the study that an import names, and of a training after
truncation."""


@dataclass(frozen=True)
class ImportRecord:
    """How the study of an imported network divides the cases. The data set is not known at the import."""

    seed: int
    """Of the draw, by the stored data section."""
    split: Split | None = None
    """The content of the study's split file; None without one."""


@dataclass(frozen=True)
class Provenance:
    """What is stored next to a checkpoint: preprocessing, classes, split, training settings. None where it is not."""

    data: DataConfig | None = None
    classes: dict[int, str] | None = None
    split: Split | None = None
    training: TrainConfig | None = None
    imported: ImportRecord | None = None

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
    """Read preparation.json, trial.json, import.json and recovery.json in the folder of a checkpoint.

    Cases on which the network was trained further count as training cases. Raises WeightsError if a file is damaged.
    """
    recipe = stored_recipe(checkpoint)
    trained, recovered = (_training_record(checkpoint / name) for name in (TRIAL, RECOVERY))
    split = trained[0] if trained else None
    if recovered:
        split = recovered[0] if split is None else _also_trained(split, recovered[0].train)
    record = trained or recovered
    return Provenance(
        recipe.data if recipe else None,
        recipe.classes if recipe else None,
        split,
        record[1] if record else None,
        _import_record(checkpoint / IMPORT),
    )


def _import_record(path: Path) -> ImportRecord | None:
    content = read_json(path)
    if not content:
        return None
    try:
        split = content["split"]
        return ImportRecord(int(content["seed"]), None if split is None else _split(split))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} does not hold what vitrim writes there") from error


def _split(content: Mapping[str, Any]) -> Split:
    return Split(tuple(content["train"]), tuple(content["validation"]), tuple(content.get("tuning", ())))


def _training_record(path: Path) -> tuple[Split, TrainConfig] | None:
    content = read_json(path)
    if not content:
        return None
    try:
        return _split(content["split"]), TrainConfig.model_validate(content["training"])
    except ValidationError as error:
        raise WeightsError(f"{path}: {explain(error, TrainConfig)}") from error
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path} does not hold what vitrim writes there") from error


def _also_trained(split: Split, more: tuple[str, ...]) -> Split:
    train = tuple(dict.fromkeys((*split.train, *more)))
    rest = (tuple(id for id in ids if id not in more) for ids in (split.validation, split.tuning))
    return Split(train, *rest)


def write_recovery(folder: Path, split: Split, training: TrainConfig | None) -> None:
    """Record in the folder of a checkpoint which cases its recovery trained on, and which it kept apart."""
    assert training is not None
    write_json(folder / RECOVERY, {"split": split.dump(), "training": training.model_dump(mode="json")})


def split_rule(study: Study) -> tuple[DataConfig, int]:
    """How a study divides cases for a network that it did not train: its data section (of its first fold), and a seed.

    Tuning cases are only those that the study asks for, since the network may have learned the others.
    """
    if isinstance(study, DataConfig):
        data, seed = study, 0
    else:
        config = load_study(study)
        data, seed = config.data, config.seed
        if config.folds is not None:
            data = data.model_copy(update={"folds": None if data.split_file else config.folds, "fold": 0})
    return data.model_copy(update={"tuning": data.tuning or 0}), seed


def with_split(provenance: Provenance, cases: CaseSet, study: Study | None = None, draw: bool = False) -> Provenance:
    """Add the split to the provenance of a network whose training vitrim did not record.

    It is that of `study`, or of the study that the import named. Of an import's study it is known without `draw` only
    where it says which cases the network learned: by a split file, or by the data set's own lists. A drawn split says
    which cases to keep apart from now on. Raises DataError as `split_cases` does.
    """
    imported = provenance.imported
    if provenance.split is not None or (study is None and imported is None):
        return provenance
    if study is not None:
        return replace(provenance, split=split_cases(cases, *split_rule(study)))
    assert imported is not None
    listed = bool(cases.labelled) and all(case.split for case in cases.labelled)
    if imported.split is not None:
        return replace(provenance, split=imported.split)
    if provenance.data is None or not (listed or draw):
        return provenance
    return replace(provenance, split=split_cases(cases, provenance.data, imported.seed))


def new_folder(out: Path | str) -> Path:
    """The path `out`. ConfigurationError if something exists there."""
    if Path(out).exists():
        raise ConfigurationError(f"{out} exists already; choose another folder with --out")
    return Path(out)


def cases_for(
    checkpoint: Path, network: Network | Adapted, provenance: Provenance, folder: Path, study: DataConfig | None
) -> tuple[DataConfig, CaseSet]:
    """Find the cases in `folder`, read as the checkpoint's study read them unless `study` says otherwise.

    Raises InputError if neither says how to prepare the images, or if the cases do not fit the network: another image
    size, other channels, other classes.
    """
    config = study or provenance.data
    if config is None:
        raise InputError(not_prepared(checkpoint))
    if config.image_size != network.image_size:
        raise InputError(f"{checkpoint} takes images of {network.image_size}, not of {config.image_size}")
    if config.normalize == "unit" and config.layout == "synapse" and folder.is_dir() and is_release(folder):
        config = config.model_copy(update={"normalize": "none", "clip": None})  # its files are prepared so far
    cases = read_cases(config.model_copy(update={"phantom": None}), folder)
    channels = len(cases.channels)
    if channels != network.in_chans and not (channels == 1 and network.stem_channels == 3):
        raise DataError(
            f"{checkpoint} takes {network.in_chans} channel(s), {folder} has {channels}: {', '.join(cases.channels)}"
        )
    known = provenance.classes or {}
    named = {n: name for n, name in known.items() if name != unnamed(n)}
    differ = any(cases.classes.get(n) != name for n, name in named.items())
    if cases.num_classes != network.num_classes or differ:
        known = known or dict.fromkeys(range(network.num_classes), "?")
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
    with unfinished(near) as scratch:
        with reporter.stage(f"prepare {len(ids)} cases", len(ids)) as stage:
            cache = SliceCache.build(
                cases, ids, preprocessing, scratch, progress=lambda done, total: stage.advance(note=ids[done - 1])
            )
        yield PreparedData(config, cases, cache, preprocessing)


def _named(classes: dict[int, str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in sorted(classes.items()))
