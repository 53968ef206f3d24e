"""Volumes in formats other than NIfTI, written with SimpleITK and pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is missing: pip install 'vitrim[formats]'")
pydicom = pytest.importorskip("pydicom", reason="pydicom is missing: pip install 'vitrim[formats]'")

SPACING = (1.2, 1.5, 4.0)
ORIGIN = (20.0, -30.5, 7.25)
SHAPE = (20, 24, 5)
TURNED = {
    "axial": np.eye(3),
    "coronal": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]).T,
    "sagittal": np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]]).T,
    "flipped": np.diag([-1.0, 1, -1]),
}
"""Directions of the axes in LPS, one a column."""

for _name, _angles in {"oblique": (20, -35, 10), "very oblique": (47, 44, -130)}.items():
    _a, _b, _c = np.radians(_angles)
    TURNED[_name] = (
        np.array([[np.cos(_a), -np.sin(_a), 0], [np.sin(_a), np.cos(_a), 0], [0, 0, 1]])
        @ np.array([[np.cos(_b), 0, np.sin(_b)], [0, 1, 0], [-np.sin(_b), 0, np.cos(_b)]])
        @ np.array([[1, 0, 0], [0, np.cos(_c), -np.sin(_c)], [0, np.sin(_c), np.cos(_c)]])
    )


def voxels(seed: int = 0) -> np.ndarray:
    """A random volume (X, Y, Z), int16, with blocks that a network can tell apart."""
    x, y, z = SHAPE
    coarse = np.random.default_rng(seed).normal(0, 300, (x // 4, y // 4, z))
    return coarse.repeat(4, axis=0).repeat(4, axis=1).astype(np.int16)


def itk_image(array: np.ndarray, direction: np.ndarray = TURNED["oblique"]) -> sitk.Image:
    """An image of voxels (X, Y, Z)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(direction.ravel().tolist())
    return image


def write_volume(
    path: Path, array: np.ndarray, direction: np.ndarray = TURNED["oblique"], zipped: bool = False
) -> Path:
    """Write voxels (X, Y, Z) in the format that the ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(itk_image(array, direction), str(path), zipped)
    return path


def write_series(folder: Path, array: np.ndarray, direction: np.ndarray = TURNED["oblique"], **changes: object) -> Path:
    """Write voxels (X, Y, Z) as a DICOM series, one file a slice, in an order that is not that of their places.

    `changes`: tags for all slices, or functions of the slice's index; `shift` (mm in LPS) is added to the position.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shift = changes.pop("shift", lambda n: np.zeros(3))
    uid = pydicom.uid.generate_uid()
    for n in range(array.shape[2]):
        file = pydicom.Dataset()
        file.file_meta = pydicom.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        file.StudyInstanceUID, file.SeriesInstanceUID = "1.2.3", uid
        file.Modality, file.SeriesNumber, file.SeriesDescription, file.InstanceNumber = "CT", 3, "thin", n + 1
        file.Columns, file.Rows = array.shape[:2]
        file.PixelSpacing, file.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        file.ImageOrientationPatient = [round(v, 10) for v in direction[:, :2].T.ravel()]
        position = np.array(ORIGIN) + direction[:, 2] * SPACING[2] * n + shift(n)  # type: ignore[operator]
        file.ImagePositionPatient = [round(v, 6) for v in position]
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 1
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
        file.RescaleSlope, file.RescaleIntercept = 1, 0
        file.PixelData = array[:, :, n].T.astype("<i2").tobytes()
        for tag, value in changes.items():
            setattr(file, tag, value(n) if callable(value) else value)
        file.save_as(folder / f"IM{(7 * n) % 11:04d}", enforce_file_format=True)
    return folder


def itk_affine(image: sitk.Image) -> np.ndarray:
    """Voxel to mm in RAS+, from SimpleITK's own transform of points: the index (0, 0, 0) and a step along each axis."""
    corner = np.array(image.TransformContinuousIndexToPhysicalPoint((0.0, 0.0, 0.0)))
    affine = np.eye(4)
    for axis in range(3):
        index = [0.0, 0.0, 0.0]
        index[axis] = 1.0
        affine[:3, axis] = np.array(image.TransformContinuousIndexToPhysicalPoint(index)) - corner
    affine[:3, 3] = corner
    return np.diag([-1.0, -1, 1, 1]) @ affine
