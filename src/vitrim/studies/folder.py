"""The folder of a study: checks which study it belongs to, records facts in study.json, removes unfinished files."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

import vitrim
from vitrim.config.schema import StudyConfig
from vitrim.errors import InputError
from vitrim.files import LOCK, UNFINISHED, parse_json, remove, remove_unfinished, understood, write_json, write_text

GROWS = re.compile(r"seeds|folds|depths|rule|tries|noise_floor|margins|decoder|networks(\.\w+(\.depths)?)?")
"""Keys of a study that may change in its folder. Every training that is there and fits is used."""
VERSIONS = "versions.json"
LIBRARIES = (
    "torch",
    "timm",
    "monai",
    "lightning",
    "nibabel",
    "numpy",
    "scipy",
    "pandas",
    "pydantic",
    "SimpleITK",
    "pydicom",
)


def check_claim(folder: Path, study: StudyConfig) -> None:
    """Check that `folder` is missing or empty, or holds this study. Raises InputError if not.

    The study may have grown: other seeds, folds, depths, networks or a longer search on the same data (`GROWS`).
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder with --out")
    stored = folder / "study.json"
    if not stored.is_file():
        if any(not _ours(path) for path in folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no vitrim study; choose another folder with --out")
        return
    with understood(stored):
        other = parse_json(stored)["study"]
    if nothing_trained(folder):
        return
    differences = [name for name in _study_differences(study, other) if not GROWS.fullmatch(name)]
    if differences:
        raise InputError(
            f"{folder} holds another study (it differs in {', '.join(differences)}); choose another folder with --out"
        )


def nothing_trained(folder: Path) -> bool:
    """Whether the folder of a study holds no training worth keeping: none that is finished, none that can go on.

    Another study may then take the folder: a first start that failed must not block the corrected study.
    """
    failed = {path.stem for path in (folder / "failed").glob("*.json")}
    begun = {path.parent.name for path in (folder / "unfinished").glob("*/state.ckpt")}
    return not any((folder / "trials").glob("*/trial.json")) and begun <= failed


def begin(folder: Path, study: StudyConfig) -> None:
    """Write study.json with the configuration, before anything else is written into the folder.

    What another study left there that trained nothing is removed.
    """
    stored = folder / "study.json"
    if stored.is_file() and nothing_trained(folder) and _study_differences(study, parse_json(stored)["study"]):
        for name in ("failed", "unfinished", "data", "study.json"):
            remove(folder / name)
    if not (folder / "study.json").is_file():
        write_json(folder / "study.json", {"study": study.model_dump(mode="json"), "data": None})


def is_begun_only(folder: Path) -> bool:
    """Whether study.json names no data yet. The study then never had usable data, and its folder can be removed."""
    return (folder / "study.json").is_file() and parse_json(folder / "study.json").get("data") is None


def claim(folder: Path, study: StudyConfig, fingerprint: str) -> None:
    """Record the fingerprint of the study's data in `study.json`. Raises InputError if it holds another fingerprint.

    Also writes `config.yaml` (the study, with every value resolved) and `versions.json`.
    """
    begin(folder, study)
    stored = parse_json(folder / "study.json")
    known, differences = stored.get("data"), _study_differences(study, stored["study"])
    if known != fingerprint and nothing_trained(folder):
        known = None
    if known is not None:
        if known != fingerprint:
            raise InputError(f"{folder} holds the same study on other data; choose another folder with --out")
        if not differences:
            return
        grown = {"from": stored["study"], "differs_in": differences}
        note(folder, study=study.model_dump(mode="json"), grown=[*stored.get("grown", []), grown])
    content = study.model_dump(mode="json")
    write_text(folder / "config.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    write_json(folder / VERSIONS, versions(study))
    note(folder, data=fingerprint, study=content)


def note(folder: Path, **facts: Any) -> None:
    """Add facts to `study.json`, or replace them."""
    write_json(folder / "study.json", {**parse_json(folder / "study.json"), **facts})


def noted(folder: Path, fact: str, default: Any) -> Any:
    """Return a fact from `study.json`, or `default` if it is missing."""
    return parse_json(folder / "study.json").get(fact, default)


def sweep(folder: Path) -> None:
    """Remove the unfinished files of killed processes. Only the process that holds the study's lock may call it."""
    for place in (folder, folder / "trials", folder / "networks", folder / "failed", folder / "data"):
        remove_unfinished(place)
    for path in (folder / "unfinished").glob("*"):
        if (folder / "trials" / path.name).is_dir():
            remove(path)
        else:
            remove_unfinished(path)


def remove_if_empty(*folders: Path) -> None:
    """Remove those of the folders that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def versions(study: StudyConfig) -> dict[str, Any]:
    """Return the versions of vitrim, Python and `LIBRARIES`, and the machine, processor, threads and precision."""
    import torch  # only here: a stored study is read without it

    found: dict[str, Any] = {"vitrim": vitrim.__version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found["machine"] = f"{platform.system()} {platform.machine()}"
    found["processor"] = torch.cuda.get_device_name() if study.training.device == "gpu" else _processor()
    found["threads"] = torch.get_num_threads()
    found["precision"] = study.training.precision
    return found


def digest(content: Any) -> str:
    """Return a short hash of JSON content, for the name of a trial."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


BEGUN = {"study.json", "status.json", "data.json", "cache", "data", "logs", "config.yaml", VERSIONS}
"""What lies in the folder of a study before its data are known to be usable."""


def holds_only_ours(folder: Path) -> bool:
    """Whether the folder of a study that has only begun holds nothing but what vitrim wrote."""
    return all(path.name in BEGUN or _ours(path) for path in folder.iterdir())


def _ours(path: Path) -> bool:
    """Whether vitrim made this file: a lock or an unfinished file, which a killed process may leave."""
    unfinished = path.name.startswith(".") and path.name.removesuffix(LOCK).endswith(UNFINISHED)
    return path.name == ".lock" or unfinished


def _meaning(study: dict[str, Any]) -> dict[str, Any]:
    """Return a study without settings that change no result. Keys that an older vitrim did not write get defaults.

    A study that this version cannot read is returned unchanged.
    """
    try:
        content = StudyConfig.model_validate(study).model_dump(mode="json")
    except ValidationError:
        return study
    content["training"].pop("workers")
    return content


def _study_differences(study: StudyConfig, other: dict[str, Any]) -> list[str]:
    """Return the names of the keys in which a study and a stored one differ, as far as they change a result."""
    return _differences(_meaning(study.model_dump(mode="json")), _meaning(other))


def _differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Return the names of the keys in which two configurations differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in sorted({*ours, *theirs}):
            name = f"{where}.{key}" if where else str(key)
            if key not in ours or key not in theirs:
                found.append(name)
            else:
                found += _differences(ours[key], theirs[key], name)
        return found
    return [] if ours == theirs else [where]
