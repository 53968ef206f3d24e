"""What the report's explorer looks at: the whole attention of a few slices, in the full and the truncated networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vitrim.attention.maps import raw_maps
from vitrim.files import replacing
from vitrim.predict import predict_slices


def write_explorer(
    path: Path,
    networks: Mapping[int, nn.Module],
    images: np.ndarray,
    *,
    grid: tuple[int, int],
    cases: Sequence[str],
    slices: Sequence[int],
    reference: np.ndarray | None = None,
    segment: bool = True,
) -> None:
    """Write `explorer.npz`: run every network over the slices and keep where each patch looks.

    Arrays: case (n,), slice (n,), grid (2,), image (n, H, W), reference (n, H, W) where given, and for each network of
    k blocks mean_<k> (n, k, N, N), the head-averaged attention, heads_<k>_<block> (heads, N, N), that of every head for
    the first slice alone (it is twelve times as large), and prediction_<k> (n, H, W). Attention is float16.

    Args:
        path: the file; written whole or not at all.
        networks: by their number of blocks; one without blocks leaves a prediction alone.
        images: (n, C, H, W), as the networks take them.
        grid: rows and columns of patches.
        cases: case of each slice.
        slices: its number in the case.
        reference: label maps (n, H, W) on the same pixels.
        segment: whether the networks give logits (B, K, H, W); without, there are no predictions.

    Raises:
        InputError: if attention cannot be captured, or the networks cannot take the images.
    """
    images = np.asarray(images, dtype=np.float32)
    arrays: dict[str, np.ndarray] = {
        "case": np.array([str(case) for case in cases]),
        "slice": np.array([int(index) for index in slices]),
        "grid": np.array(grid),
        "image": images[:, 0],
    }
    if reference is not None:
        arrays["reference"] = np.asarray(reference, dtype=np.uint8)
    for blocks, network in networks.items():
        if segment:
            arrays[f"prediction_{blocks}"] = predict_slices(network.eval(), images)
        if blocks == 0:
            continue
        means = []
        for index, image in enumerate(torch.from_numpy(images)):
            maps = raw_maps(network, image[None], None, heads=True, grid=grid)
            means.append(np.stack([block.mean(axis=0) for block in maps.values()]))
            if index == 0:
                arrays |= {f"heads_{blocks}_{block}": part.astype(np.float16) for block, part in maps.items()}
        arrays[f"mean_{blocks}"] = np.stack(means).astype(np.float16)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
