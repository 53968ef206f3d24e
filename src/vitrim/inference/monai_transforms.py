"""What a MONAI bundle of a network uses: read a volume and prepare its slices as vitrim does, and go back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.image_reader import ImageReader
from monai.data.meta_tensor import MetaTensor
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.transform import MapTransform

from vitrim.config.names import VoxelSize
from vitrim.data.cases import Volume
from vitrim.data.dicom import is_dicom
from vitrim.data.formats import is_volume
from vitrim.data.intensity_scale import PLAIN
from vitrim.data.preprocessing import Preprocessing, restore
from vitrim.data.recipe import not_prepared, stored_recipe
from vitrim.errors import InputError
from vitrim.inference.inputs import ALL, Input, find_inputs, load_input


def find_cases(folder: str | Path, channels: int) -> list[dict[str, list[str]]]:
    """Return the volumes in a folder as MONAI's list of data: of each case the files of its channels, as `image`.

    Raises InputError if there is none.
    """
    return [{"image": [str(file) for file in case.files]} for case in find_inputs(Path(folder), channels, [ALL]).cases]


class VolumeReader(ImageReader):
    """Reads a volume as `vitrim predict` does, with the same checks: NIfTI, NRRD, MetaImage, or a DICOM series.

    Args:
        channels: channels that the network takes; several files are one channel each.
        voxel_size: `data.voxel_size` of the preparation, where the header's is not to be used.
    """

    def __init__(self, channels: int, voxel_size: VoxelSize | None = None) -> None:
        self.channels, self.voxel_size = channels, voxel_size

    def verify_suffix(self, filename: Any) -> bool:
        """Whether each path is a volume that vitrim reads."""
        return all(is_volume(path) or path.is_dir() or is_dicom(path) for path in _paths(filename))

    def read(self, data: Any, **_: Any) -> Volume:
        """Read the files of one case. Raises InputError if they are damaged, or if the number of channels is wrong."""
        files = tuple(_paths(data))
        return load_input(Input(files[0].name, files), self.channels, self.voxel_size).volume

    def get_data(self, img: Volume) -> tuple[np.ndarray, dict[str, Any]]:
        """Return voxels float32 (C, X, Y, Z), and what MONAI keeps of the grid: the affine is in mm, RAS+."""
        about = {"affine": img.affine, "original_affine": img.affine, "spatial_shape": np.array(img.shape)}
        return img.image, {**about, "space": "RAS", "original_channel_dim": 0}


class PrepareSlicesd(MapTransform, InvertibleTransform):
    """Turns a volume (C, X, Y, Z) into the slices that a network sees, (C, S, H, W), as its recipe says.

    It reorders the axes, and clips, standardises, crops and scales as `vitrim.data.preprocessing` does. The result's
    affine is that of the slices. The inverse brings a label map (1, S, H, W) back to the volume's grid.

    Args:
        keys: the keys of the volumes.
        folder: the folder of the network, whose `preparation.json` is the recipe.
        channels: channels that the network takes; a single channel is repeated.

    Raises:
        InputError: if the folder does not say how images are prepared.
    """

    def __init__(self, keys: Any, folder: str | Path, channels: int, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        recipe = stored_recipe(Path(folder))
        if recipe is None:
            raise InputError(not_prepared(Path(folder)))
        self.preparation, self.channels = Preprocessing.from_config(recipe.data), channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found = dict(data)
        for key in self.key_iterator(found):
            image: MetaTensor = found[key]
            affine = np.asarray(image.affine, np.float64)
            prepared = self.preparation.apply(Volume(image.numpy(), None, affine, None, "", PLAIN))
            slices = torch.from_numpy(np.ascontiguousarray(prepared.images.swapaxes(0, 1)))
            if len(slices) != self.channels:
                slices = slices.repeat(self.channels, 1, 1, 1)
            result = _on_grid(slices, affine @ to_volume(prepared.record), image)
            before = {"record": prepared.record, "affine": affine.tolist()}
            self.push_transform(result, extra_info=before, orig_size=image.shape[1:])
            found[key] = result
        return found

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring label maps, whole numbers (1, S, H, W), back to the grid of the volume: (1, X, Y, Z)."""
        found = dict(data)
        for key in self.key_iterator(found):
            labels: MetaTensor = found[key]
            before = self.pop_transform(labels)["extra_info"]
            values = restore(labels[0].cpu().numpy().astype(np.uint8), before["record"])
            found[key] = _on_grid(torch.from_numpy(values)[None], np.array(before["affine"]), labels)
        return found


def to_volume(record: Mapping[str, Any]) -> np.ndarray:
    """Return the matrix (4, 4) from an index of the prepared slices (slice, row, column) to one of the volume.

    `record` is `PreparedCase.record`.
    """
    matrix = np.eye(4)
    for step in record["steps"]:
        one = np.eye(4)
        if step["step"] == "slicing":
            one[:3] = 0
            for new, (old, flip) in enumerate(zip(step["order"], step["flips"], strict=True)):
                one[old, new] = -1 if flip else 1
                one[old, 3] = record["shape"][old] - 1 if flip else 0
        elif step["step"] == "crop":
            one[1:3, 3] = np.subtract(step["source"], step["target"])
        elif step["step"] in ("resize", "zoom"):
            less = 1 if step["step"] == "zoom" else 0  # aligned corners
            for axis, (before, after) in enumerate(zip(step["before"], step["after"], strict=True), start=1):
                scale = (before - less) / (after - less)
                one[axis, axis], one[axis, 3] = scale, 0 if less else (scale - 1) / 2
        matrix = matrix @ one
    return matrix


def _on_grid(values: torch.Tensor, affine: np.ndarray, like: MetaTensor) -> MetaTensor:
    """Return values (C, …) on a grid with that affine; the rest of what MONAI keeps is that of `like`."""
    meta = {**like.meta, "affine": torch.from_numpy(affine), "spatial_shape": np.array(values.shape[1:])}
    return MetaTensor(values, meta=meta, applied_operations=list(like.applied_operations))


def _paths(names: Any) -> list[Path]:
    return [Path(name) for name in (names if isinstance(names, Sequence) and not isinstance(names, str) else [names])]
