"""The folder of a study: whose it is, and where things lie in it."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

import vitrim
from vitrim.config import StudyConfig
from vitrim.errors import InputError
from vitrim.files import write_json, write_text

LIBRARIES = ("torch", "timm", "monai", "lightning", "nibabel", "numpy", "scipy", "pandas", "pydantic")


def check_claim(folder: Path, study: StudyConfig) -> None:
    """Refuse (InputError) a folder that holds something else than this same study."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder with --out")
    stored = folder / "study.json"
    if not stored.is_file():
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no vitrim study; choose another folder with --out")
        return
    try:
        other = json.loads(stored.read_text(encoding="utf-8"))["study"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{stored} is damaged ({error}); choose another folder with --out") from error
    differences = _differences(study.model_dump(mode="json"), other)
    if differences:
        raise InputError(
            f"{folder} holds another study (it differs in {', '.join(differences)}); choose another folder with --out"
        )


def claim(folder: Path, study: StudyConfig, fingerprint: str) -> None:
    """Write down whose folder this is: the study as it runs, and a fingerprint of its data (InputError if it differs).

    Also writes `config.yaml` (the study, everything resolved) and `versions.json`.
    """
    stored = folder / "study.json"
    if stored.is_file():
        if json.loads(stored.read_text(encoding="utf-8")).get("data") != fingerprint:
            raise InputError(f"{folder} holds the same study on other data; choose another folder with --out")
        return
    content = study.model_dump(mode="json")
    write_text(folder / "config.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    write_json(folder / "versions.json", versions(study))
    write_json(stored, {"study": content, "data": fingerprint})


def versions(study: StudyConfig) -> dict[str, Any]:
    """What the study ran on: vitrim, Python, libraries, processor, threads."""
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
    """Hash of a JSON-able value: the name of a trial."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Names of the keys in which two configurations differ."""
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
