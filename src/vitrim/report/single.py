"""The explorer of one network, as a page by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from vitrim.attention.record import AttentionProfile
from vitrim.files import write_text
from vitrim.report.page import explorer_page
from vitrim.study.explorer import write_explorer


def write_explorer_page(
    folder: Path, title: str, network: nn.Module, blocks: int, names: Sequence[str], images: np.ndarray
) -> Path:
    """Write explorer.html beside the profile in `folder`, with the attention of a few images (n, C, H, W)."""
    grid = AttentionProfile.load(folder).grid
    stored, page = folder / "explorer.npz", folder / "explorer.html"
    slices = [0] * len(names)
    write_explorer(stored, {blocks: network}, images, grid=grid, cases=names, slices=slices, segment=False)
    write_text(page, explorer_page(title, [(title, stored)]))
    return page
