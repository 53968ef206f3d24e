"""Raw attention maps of one image and their rollout (paper, 3.3.1, 3.7.1, figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vitrim.attention.capture import AttentionCall
from vitrim.attention.forward import as_written, captured_runs
from vitrim.attention.measures import rollout
from vitrim.attention.tokens import Tokens, check_call, check_layers, find_tokens, own_attention
from vitrim.errors import InputError
from vitrim.files import read_arrays, write_arrays


def raw_maps(
    model: nn.Module,
    image: Tensor,
    blocks: Sequence[int] | None = (1, 2, 3, 6),
    *,
    heads: bool = False,
    grid: tuple[int, ...] | None = None,
    prefix_tokens: int | None = None,
    layers: str | Sequence[str] | None = None,
) -> dict[int, np.ndarray]:
    """Return the attention of one image (1, C, H, W) by block, for the blocks `blocks` (from 1; None for all).

    The image may be a volume (1, C, D, H, W). Each map is (N, N) float32, averaged over heads, or (heads, N, N) with
    `heads`. Row i gives the weights with which patch i attends to all patches. Patches are in the order of the grid,
    row by row. Rows sum to 1. Class and register tokens are dropped. Blocks that the model does not have are left out,
    for example in a truncated network.

    Raises:
        InputError: if the model has none of the blocks, and for the same reasons as `profile_attention`.
    """
    maps: dict[int, np.ndarray] = {}

    def take(block: int, weights: Tensor) -> None:
        if blocks is None or block in blocks:
            maps[block] = (weights if heads else weights.mean(dim=0)).float().cpu().numpy()

    _run(model, image, take, grid, prefix_tokens, layers)
    if not maps:
        raise InputError(f"the model has none of the blocks {', '.join(str(block) for block in blocks or ())}")
    return maps


def roll_out(maps: np.ndarray) -> np.ndarray:
    """Attention rollout up to each block, (B, N, N) float32, from the head-averaged attention of all B blocks.

    Source: Abnar & Zuidema 2020.
    """
    steps: list[Tensor] = []
    for block in torch.from_numpy(maps):
        steps.append(rollout(block, steps[-1] if steps else None))
    return torch.stack(steps).numpy()


def mosaic(maps: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Arrange the N maps (N, N) of one block as tiles: (h · (h + 1) − 1, w · (w + 1) − 1), with NaN between the tiles.

    Tile (r, c) is the h × w map of the patch at row r, column c (paper, figures 4 and 5).

    Raises InputError if the maps do not fit the grid.
    """
    if len(grid) != 2:
        raise InputError(f"a mosaic shows maps over rows and columns, not over a grid of {'×'.join(map(str, grid))}")
    rows, columns = grid
    if maps.shape != (rows * columns, rows * columns):
        raise InputError(f"maps of shape {maps.shape} are not over a grid of {rows}×{columns}")
    tiles = np.full((rows, rows + 1, columns, columns + 1), np.nan, np.float32)
    tiles[:, :rows, :, :columns] = maps.reshape(rows, columns, rows, columns).transpose(0, 2, 1, 3)
    return tiles.reshape(rows * (rows + 1), columns * (columns + 1))[:-1, :-1]


@dataclass(frozen=True)
class StoredMaps:
    """Head-averaged attention of one slice in every block, as stored in `maps.npz`."""

    case: str
    slice: int
    image: np.ndarray
    """(H, W)"""
    grid: tuple[int, int]
    blocks: tuple[int, ...]
    """Blocks, from 1, whose maps are stored."""
    maps: np.ndarray
    """(B, N, N) float32, one map per block"""
    shown: tuple[int, ...]
    """Blocks whose mosaics are drawn (paper, figures 4 and 5)."""

    def save(self, path: Path) -> None:
        """Write the file `path` completely, or not at all."""
        arrays = {
            "case": np.array(self.case),
            "slice": np.array(self.slice),
            "image": self.image,
            "grid": np.array(self.grid),
            "blocks": np.array(self.blocks),
            "maps": self.maps,
            "shown": np.array(self.shown, dtype=np.int64),
        }
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> StoredMaps | None:
        """Read the file that `save` wrote; None if it does not exist. Raises InputError if it holds something else."""
        stored = read_arrays(path)
        if stored is None:
            return None
        try:
            rows, columns = (int(n) for n in stored["grid"])
            blocks = tuple(int(block) for block in stored["blocks"])
            return cls(
                case=str(stored["case"]),
                slice=int(stored["slice"]),
                image=stored["image"],
                grid=(rows, columns),
                blocks=blocks,
                maps=stored["maps"].astype(np.float32),
                # vitrim 0.1.0 stored only the blocks to show
                shown=tuple(int(block) for block in stored["shown"]) if "shown" in stored else blocks,
            )
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path} does not hold attention maps: {error!r}") from error


def tokens_of(
    model: nn.Module,
    image: Tensor,
    *,
    grid: tuple[int, ...] | None = None,
    prefix_tokens: int | None = None,
    layers: str | Sequence[str] | None = None,
) -> Tokens:
    """Return the token layout of the model over this image (1, C, H, W).

    Raises InputError for the same reasons as `profile_attention`.
    """
    return _run(model, image, lambda block, weights: None, grid, prefix_tokens, layers)


def _run(
    model: nn.Module,
    image: Tensor,
    take: Callable[[int, Tensor], None],
    grid: tuple[int, ...] | None,
    prefix_tokens: int | None,
    layers: str | Sequence[str] | None,
) -> Tokens:
    """Run the model on the image. Call `take` with the number and the weights (heads, N, N) of each block."""
    if image.ndim not in (4, 5) or len(image) != 1:
        raise InputError(f"maps need one image (1, channels, height, width); got {tuple(image.shape)}")
    model, size = as_written(model), tuple(image.shape[2:])
    wanted = own_attention(model, layers)
    tokens: Tokens | None = None
    block = 0

    def reduce(call: AttentionCall) -> bool | None:
        nonlocal tokens, block
        if not wanted(call.layer) or call.shape[2] < call.shape[3]:
            return None
        check_call(call, 1, size, tokens)
        tokens = tokens or find_tokens(call, size, model=model, grid=grid, prefix_tokens=prefix_tokens)
        block += 1
        take(block, call.patches(tokens.prefix)[0])
        return True

    with captured_runs(model, layers) as run:
        captured = run(image, reduce)
    check_layers(model, layers, captured)
    assert tokens is not None
    return tokens
