"""Damaged and hostile input, drawn from a seed: what goes in at each door of vitrim, and what must not happen.

`KINDS` holds one function per kind of input. Each gets whole input (`Whole`), an empty folder and a random generator.
It writes one damaged input and returns the command that reads it.
"""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import torch
import yaml

import vitrim as package
from tests.report.synthetic_run import make_run
from tests.support import vitrim, write_checkpoint, write_image, write_tiny_data

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3.5, 10**12, 1e308, float("nan"), float("inf"), "", "1", "²", "=1+1", "\x1b[31mred\x1b[0m",
    "a" * 300, "../../etc/passwd", [], {}, [[[]]], {"a": {"b": []}}, ["x", 1],
)  # fmt: skip
"""Values in place of expected ones."""

DEEP = "[" * 3000 + "]" * 3000
"""JSON too deep for Python's recursion."""


@dataclass(frozen=True)
class Whole:
    """Undamaged input of every kind; made once."""

    image: Path
    network: Path
    exported: Path
    data: Path
    study: Path
    run: Path
    release: Path
    npz: Path

    @classmethod
    def make(cls, folder: Path) -> Whole:
        """Write all of it into `folder`."""
        network = write_checkpoint(folder / "network")
        assert vitrim("export", network, "-o", folder / "network.onnx") == 0
        data = write_tiny_data(folder / "data", cases=3, size=48, slices=2)
        study = folder / "study.yaml"
        content = {
            "name": "tiny", "data": {"image_size": 32, "validation": 1, "clip": [-100, 100]},
            "networks": {"unetr2d": {"depths": [1]}}, "size": "micro", "width": 0.125,
            "training": {"steps": 1, "batch_size": 2, "schedule": "cosine"}, "margins": [0.05], "seeds": [0],
        }  # fmt: skip
        study.write_text(yaml.safe_dump(content))
        release = package.create_model(
            "transunet", num_classes=3, image_size=32, in_chans=1, size="tiny", depth=1, width=1.0, stem="release"
        )
        torch.save({"state_dict": {name: t for name, t in release.state_dict().items() if t.numel() < 5000}},
                   folder / "release.pth")  # fmt: skip
        run = make_run(folder / "run", ("unetr2d",), ("aorta", "liver"), grid=(4, 4), cases=4, heads=2)
        return cls(
            write_image(folder / "image.nii"), network, folder / "network.onnx", data, study, run,
            folder / "release.pth", _synapse(folder / "synapse"),
        )  # fmt: skip


def _synapse(folder: Path) -> Path:
    """Two training slices and a test volume in the layout of the TransUNet release."""
    rng = np.random.default_rng(0)
    for name in ("train_npz", "test_vol_h5", "lists_Synapse"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        image = rng.normal(size=(32, 32)).astype(np.float32)
        np.savez(
            folder / "train_npz" / f"case0005_slice{number:03d}.npz", image=image, label=(image > 1).astype(np.uint8)
        )
    with h5py.File(folder / "test_vol_h5" / "case0008.npy.h5", "w") as file:
        file["image"], file["label"] = rng.normal(size=(3, 32, 32)), np.zeros((3, 32, 32), np.uint8)
    (folder / "lists_Synapse" / "train.txt").write_text("case0005_slice000\ncase0005_slice001\n")
    (folder / "lists_Synapse" / "test_vol.txt").write_text("case0008\n")
    return folder


Command = tuple[object, ...]
Kind = Callable[[Whole, Path, np.random.Generator], Command]


def bytes_changed(content: bytes, rng: np.random.Generator, upto: int | None = None) -> bytes:
    """Flip bits, overwrite, cut or repeat a part of `content`; only in its first `upto` bytes, if given."""
    damaged, end = bytearray(content), len(content) if upto is None else min(upto, len(content))
    for _ in range(int(rng.integers(1, 5))):
        if not damaged:
            break
        place = int(rng.integers(end))
        match int(rng.integers(4)):
            case 0:
                damaged[place] ^= 1 << int(rng.integers(8))
            case 1:
                damaged[place] = int(rng.choice([0, 1, 127, 128, 255]))
            case 2 if upto is None:
                del damaged[place : place + int(rng.integers(1, 64))]
            case _:
                damaged[place : place + 4] = rng.bytes(4)
        end = min(end, len(damaged)) or 1
    return bytes(damaged)


def value_changed(content: Any, rng: np.random.Generator) -> Any:
    """Replace, remove or add something at a random place of nested lists and dictionaries."""
    content = json.loads(json.dumps(content))
    place, places = content, []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            places.append((node, key))
            walk(value)

    walk(content)
    if not places or rng.random() < 0.03:
        return ODD[int(rng.integers(len(ODD)))]
    place, key = places[int(rng.integers(len(places)))]
    match int(rng.integers(6)):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place[f"{key}x"] = place.pop(key)
        case 2 if isinstance(place, list):
            place.append(place[0])
        case _:
            place[key] = ODD[int(rng.integers(len(ODD)))]
    return content


def text_of(content: Any, rng: np.random.Generator) -> str:
    """Write JSON, sometimes with damaged text: cut, a key twice, too deep, not UTF-8 when it is encoded."""
    text = json.dumps(content)
    match int(rng.integers(12)):
        case 0:
            return text[: int(rng.integers(len(text) + 1))]
        case 1:
            return DEEP
        case 2:
            return text.replace("{", '{"labels": {}, "labels": {},', 1)
        case _:
            return text


def json_changed(path: Path, rng: np.random.Generator) -> None:
    """Damage a JSON file in place."""
    text = text_of(value_changed(json.loads(path.read_text()), rng), rng)
    path.write_bytes(text.encode() if rng.random() < 0.95 else text.encode("utf-16"))


def header(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A NIfTI file whose header is damaged."""
    (place / "in.nii").write_bytes(bytes_changed(whole.image.read_bytes(), rng, upto=348))
    return ("predict", whole.network, place / "in.nii", "-o", place / "out.nii")


def zipped(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A compressed NIfTI file that is damaged anywhere."""
    (place / "in.nii.gz").write_bytes(bytes_changed(gzip.compress(whole.image.read_bytes(), 1), rng))
    return ("predict", whole.network, place / "in.nii.gz", "-o", place / "out.nii.gz")


def description(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A dataset.json that is damaged."""
    shutil.copytree(whole.data, place / "data", copy_function=shutil.copyfile)
    json_changed(place / "data" / "dataset.json", rng)
    return ("data", "check", "decathlon", place / "data", "--out", place / "check.json")


def labels(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A data set with one label file of other values, another type or a damaged header."""
    shutil.copytree(whole.data, place / "data", copy_function=shutil.copyfile)
    path = place / "data" / "labelsTr" / "case_001.nii.gz"
    image = nib.load(path)
    array = np.asarray(image.dataobj).astype(np.float64)
    match int(rng.integers(4)):
        case 0:
            array[array == 1] = rng.choice([0.5, 1.4, 3, 255, 256, 1e12, -1, np.nan, np.inf])
        case 1:
            array = array[..., : int(rng.integers(1, 3))]
        case _:
            path.write_bytes(gzip.compress(bytes_changed(gzip.decompress(path.read_bytes()), rng, upto=348)))
            return ("data", "check", "decathlon", place / "data", "--out", place / "check.json")
    nib.save(nib.Nifti1Image(array, image.affine), path)
    return ("data", "check", "decathlon", place / "data", "--out", place / "check.json")


def configuration(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A study file that is damaged."""
    content = value_changed(yaml.safe_load(whole.study.read_text()), rng)
    text = json.dumps(content) if rng.random() < 0.3 else yaml.safe_dump(content, allow_unicode=True)
    if rng.random() < 0.2:
        text = bytes_changed(text.encode(), rng).decode("latin-1")
    (place / "study.yaml").write_text(text)
    return ("study", place / "study.yaml", "--data", place / "nowhere", "--out", place / "run")


def checkpoint(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A checkpoint with one damaged file."""
    shutil.copytree(whole.network, place / "network")
    name = str(rng.choice(["model.json", "model.safetensors", "preparation.json", "trial.json"]))
    if name == "trial.json":
        record = {"split": {"train": ["a"], "validation": ["b"]}, "training": {"steps": 1}}
        (place / "network" / name).write_text(json.dumps(record))
    if name.endswith(".json"):
        json_changed(place / "network" / name, rng)
    else:
        path = place / "network" / name
        path.write_bytes(bytes_changed(path.read_bytes(), rng, upto=None if rng.random() < 0.5 else 2000))
    if rng.random() < 0.5:
        return ("predict", place / "network", whole.image, "-o", place / "out.nii")
    return ("evaluate", place / "network", "--data", whole.data, "--out", place / "out", "--cases", "all")


def exported(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """An ONNX file that is damaged."""
    (place / "network.onnx").write_bytes(bytes_changed(whole.exported.read_bytes(), rng))
    return ("predict", place / "network.onnx", whole.image, "-o", place / "out.nii")


def slices(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A Synapse folder with a damaged npz or h5 file, or one that points elsewhere."""
    shutil.copytree(whole.npz, place / "synapse")
    npz = place / "synapse" / "train_npz" / "case0005_slice001.npz"
    h5 = place / "synapse" / "test_vol_h5" / "case0008.npy.h5"
    match int(rng.integers(6)):
        case 0:
            h5.unlink()
            with h5py.File(h5, "w") as file:
                file["image"] = h5py.ExternalLink("/etc/hostname", "image")
                file["label"] = h5py.SoftLink("/image")
        case 1:
            np.savez(npz, image=np.array([None, {}], dtype=object), label=np.zeros(2))
        case 2:
            with zipfile.ZipFile(npz, "w", zipfile.ZIP_DEFLATED) as file:
                file.writestr("image.npy", b"\x93NUMPY\x01\x00" + rng.bytes(60))
        case 3:
            h5.write_bytes(bytes_changed(h5.read_bytes(), rng))
        case _:
            npz.write_bytes(bytes_changed(npz.read_bytes(), rng))
    return ("data", "check", "synapse", place / "synapse", "--out", place / "check.json")


def report(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """The folder of a finished study with one damaged file."""
    shutil.copytree(whole.run, place / "run")
    files = sorted(p for p in (place / "run").rglob("*") if p.suffix in (".json", ".csv", ".npz", ".yaml"))
    path = files[int(rng.integers(len(files)))]
    if path.suffix == ".json":
        json_changed(path, rng)
    elif path.suffix == ".csv" and rng.random() < 0.7:
        rows = path.read_text().splitlines()
        row = int(rng.integers(len(rows)))
        cells = rows[row].split(",")
        cells[int(rng.integers(len(cells)))] = str(ODD[int(rng.integers(len(ODD)))])
        path.write_text("\n".join([*rows[:row], ",".join(cells), *rows[row + 1 :]]) + "\n")
    else:
        path.write_bytes(bytes_changed(path.read_bytes(), rng))
    return ("report", place / "run")


def status(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """The folder of a running study with damaged records of where it is."""
    run = place / "run"
    (run / "unfinished" / "a").mkdir(parents=True)
    trials = [{"trial": "a", "title": "A", "state": "running"}, {"trial": "b", "title": "B", "state": "failed"}]
    now = {"pid": 1, "host": "h", "trials": trials, "seconds_each": 3.0, "at_once": 1, "updated": 1.0}
    beat = {"title": "A", "doing": "train", "pid": 1, "host": "h", "step": 1, "steps": 2, "epoch": 1, "epochs": 1,
            "loss": 0.5, "updated": 1.0}  # fmt: skip
    for path, content in ((run / "status.json", now), (run / "unfinished" / "a" / "progress.json", beat)):
        path.write_text(text_of(value_changed(content, rng), rng))
    (run / "study.json").write_text("{}")
    return ("study", whole.study, "--out", run, "--status")


def released(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A checkpoint of other code that is damaged, or holds other things than tensors."""
    path = place / "release.pth"
    match int(rng.integers(3)):
        case 0:
            torch.save({"state_dict": {"a": ODD[int(rng.integers(len(ODD)))]}, "epoch": 3}, path)
        case 1:
            name = str(rng.choice(["transformer.embeddings.position_embeddings", "segmentation_head.0.weight"]))
            torch.save({name: torch.zeros(rng.integers(0, 4, int(rng.integers(0, 5))).tolist())}, path)
        case _:
            path.write_bytes(bytes_changed(whole.release.read_bytes(), rng))
    return ("import", "transunet", path, "-o", place / "imported")


def decision(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A decision.json that is damaged."""
    source = next(whole.run.rglob("decision.json"))
    shutil.copyfile(source, place / "decision.json")
    json_changed(place / "decision.json", rng)
    return ("compress", whole.network, "--decision", place / "decision.json", "--out", place / "small")


def split(whole: Whole, place: Path, rng: np.random.Generator) -> Command:
    """A split file that is damaged."""
    content = value_changed({"train": ["case_000", "case_001"], "validation": ["case_002"]}, rng)
    (place / "split.json").write_text(text_of(content, rng))
    study = yaml.safe_load(whole.study.read_text())
    del study["data"]["validation"]
    study["data"]["split_file"] = str(place / "split.json")
    (place / "study.yaml").write_text(yaml.safe_dump(study))
    return ("data", "check", place / "study.yaml", whole.data, "--out", place / "check.json")


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        header, zipped, description, labels, configuration, checkpoint, exported, slices, report, status, released,
        decision, split,
    )
}  # fmt: skip
