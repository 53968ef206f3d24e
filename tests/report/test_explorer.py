"""Tests of the explorer data: error of 4 bits, size limit, and explorer.npz of a network."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.report.synthetic_run import attention
from vitrim.attention.maps import raw_maps, roll_out
from vitrim.attention.measures import linear_measures
from vitrim.errors import InputError
from vitrim.models.factory import create_model
from vitrim.models.network import truncate
from vitrim.report.explorer import embed, read_explorer
from vitrim.report.html_page import explorer_page
from vitrim.report.quantise import loss, pack, row_distance, unpack
from vitrim.studies.snapshots import write_explorer

RNG = np.random.default_rng(0)


def maps(reach: float, noise: float = 0.6, grid: tuple[int, int] = (14, 14)) -> np.ndarray:
    return np.stack([attention(grid, reach, RNG, noise) for _ in range(3)])


@pytest.mark.parametrize(
    ("reach", "noise", "moved"), [(0.3, 0.6, 0.03), (1, 0.6, 0.06), (3, 1, 0.07), (1e6, 0.1, 0.01)]
)
def test_four_bits_move_little_of_the_attention(reach: float, noise: float, moved: float) -> None:
    exact = maps(reach, noise)
    assert loss(exact, unpack(pack(exact)), (14, 14)).moved < moved


def test_unpacked_rows_sum_to_one() -> None:
    assert unpack(pack(maps(1))).sum(axis=-1) == pytest.approx(np.ones((3, 196)), abs=1e-5)


def test_attention_to_one_patch_alone_comes_back_as_it_was() -> None:
    assert unpack(pack(np.eye(9))) == pytest.approx(np.eye(9), abs=1e-6)


def test_uniform_attention_comes_back_as_it_was() -> None:
    assert unpack(pack(np.full((9, 9), 1 / 9))) == pytest.approx(np.full((9, 9), 1 / 9), abs=1e-6)


def test_an_odd_number_of_patches_is_packed_too() -> None:
    exact = maps(1, grid=(3, 5))
    packed = pack(exact)
    assert packed.levels.shape == (3, 15, 8)
    assert len(packed.content) == 3 * 15 * (4 + 8)
    assert np.abs(unpack(packed) - exact).max() < 0.05


def test_distance_is_that_of_the_attention_room() -> None:
    exact = maps(2, grid=(4, 6))
    expected = linear_measures(torch.from_numpy(exact), ("distance_patches",), (4, 6))[..., 0].numpy()
    assert row_distance(exact, (4, 6)).mean(axis=-1) == pytest.approx(expected, rel=1e-5)


def test_rollout_multiplies_what_every_block_passes_on() -> None:
    one = maps(1, grid=(3, 3))
    step = [(block + np.eye(9)) / 2 for block in one]
    assert roll_out(one)[2] == pytest.approx(step[2] @ step[1] @ step[0], abs=1e-6)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, torch.nn.Module], np.ndarray]:
    """explorer.npz of a small TransUNet, full and truncated, on two slices; the networks and the images."""
    torch.manual_seed(0)
    full = create_model("transunet", num_classes=3, size="micro", width=0.25, image_size=64).eval()
    networks = {12: full, 3: truncate(full, 3).eval()}
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    path = tmp_path_factory.mktemp("explorer") / "explorer.npz"
    reference = np.zeros((2, 64, 64), np.uint8)
    write_explorer(path, networks, images, grid=(4, 4), cases=["a", "b"], slices=[3, 5], reference=reference)
    return path, networks, images


def test_the_stored_attention_is_the_networks(written: tuple[Path, dict[int, torch.nn.Module], np.ndarray]) -> None:
    path, networks, images = written
    stored = read_explorer(path)
    assert stored is not None
    assert [variant.blocks for variant in stored.variants] == [12, 3]
    assert (stored.cases, stored.slices, stored.grid) == (("a", "b"), (3, 5), (4, 4))
    for variant in stored.variants:
        assert variant.mean is not None
        for index in range(2):
            expected = raw_maps(networks[variant.blocks], torch.from_numpy(images[index : index + 1]), None, heads=True)
            averaged = np.stack([block.mean(axis=0) for block in expected.values()])
            assert variant.mean[index] == pytest.approx(averaged, abs=1e-3)
            if index == 0:
                assert np.stack(variant.heads) == pytest.approx(np.stack(list(expected.values())), abs=1e-3)
        with torch.no_grad():
            labels = networks[variant.blocks](torch.from_numpy(images)).argmax(dim=1)
        assert variant.prediction is not None
        assert (variant.prediction == labels.numpy()).mean() > 0.999  # the memory format may change a tie


def test_a_network_that_does_not_segment_is_explored_too(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
    images = np.zeros((1, 3, 64, 64), np.float32)
    path = tmp_path / "explorer.npz"
    write_explorer(path, {12: network}, images, grid=(4, 4), cases=["photo"], slices=[0], segment=False)
    page = explorer_page("vit <tiny>", [("vit <tiny>", path)])
    assert "vit &lt;tiny&gt;" in page
    assert "<tiny>" not in page


def test_an_explorer_without_its_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        explorer_page("x", [("x", tmp_path / "explorer.npz")])
    np.savez(tmp_path / "explorer.npz", something=np.zeros(3))
    with pytest.raises(InputError, match="is not an explorer file of vitrim"):
        explorer_page("x", [("x", tmp_path / "explorer.npz")])


def header(data: str) -> dict:
    """Return the header of the embedded data, and check that all sections can be unpacked."""
    content = base64.b64decode(data)
    length = struct.unpack("<I", content[:4])[0]
    head = json.loads(content[4 : 4 + length])
    place = 4 + length
    for size in head["sections"].values():
        zlib.decompress(content[place : place + size])
        place += size
    assert place == len(content)
    return head


def test_what_does_not_fit_is_left_out_in_order_and_said(small: Path) -> None:
    stored = read_explorer(small / "networks" / "unetr2d" / "explorer.npz")
    assert stored is not None
    sizes = []
    whole = embed("n", "N", stored, ["a"], 10**7)
    assert whole is not None
    assert header(whole.data)["variants"] == [{"blocks": 12, "heads": [2] * 12}, {"blocks": 3, "heads": [2] * 3}]
    assert "left out" not in whole.note
    budget = len(whole.data)
    said = []
    while (part := embed("n", "N", stored, ["a"], budget)) is not None:
        assert len(part.data) <= budget
        head = header(part.data)
        sizes.append((len(head["slices"]), sum(bool(variant["heads"]) for variant in head["variants"])))
        said.append(part.note)
        budget = len(part.data) - 1
    assert sizes == sorted(sizes, key=lambda pair: (pair[1] > 0, pair), reverse=True)
    assert sizes[0] == (3, 2)
    assert sizes[-1] == (1, 0)
    assert "Single heads of the truncated networks are left out for size." in said[1]
    assert "Single heads are left out for size." in said[-1]
    assert "Slices left out for size: 2 of 3." in said[-1]


def test_of_a_sweep_the_full_the_decided_and_the_papers_depths_are_kept(tmp_path: Path) -> None:
    grid, arrays = (2, 2), {}
    for depth in (12, 9, 6, 3, 2, 1):
        arrays[f"mean_{depth}"] = np.full((1, depth, 4, 4), 0.25, np.float16)
    np.savez(tmp_path / "e.npz", case=["a"], slice=[0], grid=grid, image=np.zeros((1, 32, 32)), **arrays)
    stored = read_explorer(tmp_path / "e.npz")
    assert stored is not None
    part = embed("n", "N", stored, [], 10**6, decided=6)
    assert part is not None
    assert [variant["blocks"] for variant in header(part.data)["variants"]] == [12, 6, 3, 1]
