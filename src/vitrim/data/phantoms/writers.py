"""Write phantom cases to disk in the layouts of real data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import h5py
import nibabel as nib
import numpy as np

from vitrim.config.schema import PhantomConfig
from vitrim.data.phantoms.shapes import Drawing, Triple
from vitrim.data.readers.synapse import ORGANS, RAW_VALUES
from vitrim.errors import ConfigurationError
from vitrim.files import write_json, write_text


class Writer(Protocol):
    """Writes the cases of one data set, then the other files of the layout."""

    def __init__(self, folder: Path, config: PhantomConfig, names: tuple[str, ...], modality: str) -> None: ...

    def write(self, number: int, drawing: Drawing, spacing: Triple) -> None: ...

    def finish(self) -> None: ...


class Decathlon:
    """Writer of the Decathlon layout: imagesTr, labelsTr, dataset.json."""

    def __init__(self, folder: Path, config: PhantomConfig, names: tuple[str, ...], modality: str) -> None:
        self._folder, self._config, self._names, self._modality = folder, config, names, modality
        self._ids: list[str] = []

    def write(self, number: int, drawing: Drawing, spacing: Triple) -> None:
        id = f"{self._config.kind}_{number + 1:03d}"
        save(self._folder / "imagesTr" / f"{id}.nii.gz", drawing.image, spacing, self._config.orientation)
        save(self._folder / "labelsTr" / f"{id}.nii.gz", drawing.label, spacing, self._config.orientation)
        self._ids.append(id)

    def finish(self) -> None:
        entries = [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in self._ids]
        description = {
            "name": f"phantom {self._config.kind}",
            "description": f"made by vitrim, seed {self._config.seed}",
            "modality": {"0": self._modality},
            "labels": {"0": "background", **{str(n + 1): name for n, name in enumerate(self._names)}},
            "numTraining": len(entries),
            "training": entries,
            "test": [],
        }
        write_json(self._folder / "dataset.json", description)


class Ibsr18:
    """Writer of IBSR 18: IBSR_01/IBSR_01_ana_strip.nii.gz and IBSR_01_segTRI_ana.nii.gz, fourth axis of length 1."""

    def __init__(self, folder: Path, config: PhantomConfig, names: tuple[str, ...], modality: str) -> None:
        self._folder, self._orientation = folder, config.orientation

    def write(self, number: int, drawing: Drawing, spacing: Triple) -> None:
        id = f"IBSR_{number + 1:02d}"
        for end, array in (("ana_strip", drawing.image), ("segTRI_ana", drawing.label)):
            save(self._folder / id / f"{id}_{end}.nii.gz", array[..., None], spacing, self._orientation)

    def finish(self) -> None:
        return


class Emidec:
    """Writer of EMIDEC: Case_P001/Images/Case_P001.nii.gz and Case_P001/Contours/…; N, not P, if no infarct."""

    def __init__(self, folder: Path, config: PhantomConfig, names: tuple[str, ...], modality: str) -> None:
        self._folder, self._orientation = folder, config.orientation

    def write(self, number: int, drawing: Drawing, spacing: Triple) -> None:
        id = f"Case_{'P' if (drawing.label > 2).any() else 'N'}{number + 1:03d}"
        for part, array in (("Images", drawing.image), ("Contours", drawing.label)):
            save(self._folder / id / part / f"{id}.nii.gz", array, spacing, self._orientation)

    def finish(self) -> None:
        return


class SynapseRelease:
    """Writer of the TransUNet release: npz slices for training, h5 volumes for testing (3 : 2), and their lists.

    Intensities are clipped to -125..275 HU and scaled to 0..1.
    """

    def __init__(self, folder: Path, config: PhantomConfig, names: tuple[str, ...], modality: str) -> None:
        if config.orientation != "RAS":
            raise ConfigurationError(
                "the TransUNet release has no headers: a phantom in the layout synapse is always RAS"
            )
        self._folder, self._values = folder, np.array([0, *(ORGANS.index(name) + 1 for name in names)], np.float32)
        self._training = round(config.cases * 18 / 30) or 1
        self._lists: dict[str, list[str]] = {"train": [], "test_vol": []}
        for name in ("train_npz", "test_vol_h5"):
            (folder / name).mkdir()

    def write(self, number: int, drawing: Drawing, spacing: Triple) -> None:
        # axes as in a stored CT: slices first, rows to the back, columns to the left
        image = ((drawing.image.clip(-125, 275) + 125) / 400)[::-1, ::-1].transpose(2, 1, 0)
        label = self._values[drawing.label][::-1, ::-1].transpose(2, 1, 0)
        id = f"case{number + 1:04d}"
        if number < self._training:
            for n, (image_slice, label_slice) in enumerate(zip(image, label, strict=True)):
                name = f"{id}_slice{n:03d}"
                np.savez(self._folder / "train_npz" / f"{name}.npz", image=image_slice, label=label_slice)
                self._lists["train"].append(name)
            return
        with h5py.File(self._folder / "test_vol_h5" / f"{id}.npy.h5", "w") as file:
            file["image"], file["label"] = image, label
        self._lists["test_vol"].append(id)

    def finish(self) -> None:
        for name, entries in self._lists.items():
            write_text(self._folder / "lists_Synapse" / f"{name}.txt", "".join(f"{entry}\n" for entry in entries))


class SynapseRaw:
    """Writer of the challenge's files: img/img0001.nii.gz, label/label0001.nii.gz, numbered 1 to 10 and from 21."""

    def __init__(self, folder: Path, config: PhantomConfig, names: tuple[str, ...], modality: str) -> None:
        self._folder, self._orientation = folder, config.orientation
        raw = {index: value for value, index in RAW_VALUES.items() if index}
        self._values = np.array([0, *(raw[ORGANS.index(name) + 1] for name in names)], np.uint8)

    def write(self, number: int, drawing: Drawing, spacing: Triple) -> None:
        shown = number + 1 if number < 10 else number + 11
        save(self._folder / "img" / f"img{shown:04d}.nii.gz", drawing.image, spacing, self._orientation)
        label = self._values[drawing.label]
        save(self._folder / "label" / f"label{shown:04d}.nii.gz", label, spacing, self._orientation)

    def finish(self) -> None:
        return


WRITERS: dict[str, type[Writer]] = {
    "decathlon": Decathlon,
    "ibsr18": Ibsr18,
    "emidec": Emidec,
    "synapse": SynapseRelease,
    "synapse-raw": SynapseRaw,
}


def save(path: Path, array: np.ndarray, spacing: Triple, orientation: str) -> None:
    """Write an array (X, Y, Z, …) in RAS+ orientation as NIfTI with its axes reordered to `orientation`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = array if array.dtype == np.uint8 else array.round().astype(np.int16)
    image = nib.Nifti1Image(whole, np.diag([*spacing, 1.0]))
    codes = nib.orientations.axcodes2ornt(orientation)
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), codes)
    nib.save(image.as_reoriented(turn), path)
