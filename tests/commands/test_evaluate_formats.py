"""`vitrim evaluate`: a data set in another format gives the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.formats import sitk
from tests.support import make_checkpoint, vitrim, write_tiny_data


def converted(data: Path, folder: Path, image: str, label: str) -> Path:
    """The data set with other endings; dataset.json then lists no files."""
    for path in data.rglob("*.nii.gz"):
        ending = image if path.parent.name == "imagesTr" else label
        other = folder / path.parent.name / path.name.replace(".nii.gz", ending)
        other.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.ReadImage(str(path)), str(other), True)
    about = json.loads((data / "dataset.json").read_text())
    del about["training"]
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize(("image", "label"), [(".nrrd", ".seg.nrrd"), (".mha", ".mhd")])
def test_a_data_set_in_another_format_gives_the_same_tables(image: str, label: str, tmp_path: Path) -> None:
    checkpoint, data = make_checkpoint(tmp_path / "network"), write_tiny_data(tmp_path / "nifti", cases=3)
    other = converted(data, tmp_path / "other", image, label)
    for source, found in ((data, "expected"), (other, "found")):
        assert vitrim("evaluate", checkpoint, "--data", source, "--out", tmp_path / found) == 0
    for name in ("cases.csv", "summary.csv"):
        assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
