"""A network as a MONAI bundle: a folder that MONAI's own runner reads. It needs vitrim to be installed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from vitrim import __version__
from vitrim.data.recipe import RECIPE, Recipe
from vitrim.errors import InputError
from vitrim.files import parse_json, write_json, write_text
from vitrim.models.checkpoint import NETWORK_FILES
from vitrim.models.network import Network

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""The schema that MONAI's `verify_metadata` reads."""

METADATA, INFERENCE, README = Path("configs/metadata.json"), Path("configs/inference.json"), Path("docs/README.md")

MODEL = Path("models")
"""The network's own folder in a bundle; `vitrim predict BUNDLE/models` reads it too."""

TRANSFORMS = "vitrim.inference.monai_transforms"

RUNNER = {"pytorch-ignite": "0.5.1", "fire": "0.7.0"}
"""What MONAI's runner needs beside MONAI."""

BATCH = 8
"""Slices in one forward pass."""


def write_bundle(folder: Path, checkpoint: Path, network: Network, recipe: Recipe) -> None:
    """Write the bundle of the network in `checkpoint` into `folder`. Raises OSError if that fails."""
    (folder / MODEL).mkdir(parents=True)
    for name in NETWORK_FILES:  # not what names the cases of a study
        shutil.copyfile(checkpoint / name, folder / MODEL / name)
    write_json(folder / MODEL / RECIPE, recipe.dump())
    write_json(folder / METADATA, metadata(network, recipe))
    write_json(folder / INFERENCE, inference(network, recipe))
    write_text(folder / README, _readme(network, recipe))


def is_bundle(folder: Path) -> bool:
    """Whether vitrim wrote a folder as a bundle."""
    try:
        return "vitrim" in parse_json(folder / METADATA)["required_packages_version"]
    except (InputError, KeyError, TypeError):
        return False


def metadata(network: Network, recipe: Recipe) -> dict[str, Any]:
    """Return what the bundle says of itself (MONAI's bundle specification)."""
    common = {"is_patch_data": False, "dtype": "float32", "spatial_shape": list(network.image_size)}
    classes = {str(value): name for value, name in recipe.classes.items()}
    channels = {str(n): f"image {n}" if network.in_chans > 1 else "image" for n in range(network.in_chans)}
    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"written by vitrim {__version__}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"vitrim": __version__, **RUNNER},
        "name": f"{network.title} with {network.depth} blocks",
        "task": f"segmentation of {', '.join(name for value, name in classes.items() if value != '0')}",
        "description": f"{network.title} with {network.depth} transformer blocks. It segments a volume slice by slice.",
        "authors": "not stated",
        "copyright": "not stated",
        "intended_use": "research; not a medical device",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": network.in_chans,
                    "value_range": [],
                    "channel_def": channels,
                    **common,
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": network.num_classes,
                    "value_range": [],
                    "channel_def": classes,
                    **common,
                }
            },
        },
    }


def inference(network: Network, recipe: Recipe) -> dict[str, Any]:
    """Return the configuration of the inference: every volume of `dataset_dir` to a label map in `output_dir`."""
    reader = {"_target_": f"{TRANSFORMS}.VolumeReader", "channels": network.in_chans}
    if recipe.data.voxel_size is not None:
        reader["voxel_size"] = recipe.data.model_dump(mode="json")["voxel_size"]
    return {
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "model_dir": f"$@bundle_root + '/{MODEL}'",
        "datalist": {"_target_": f"{TRANSFORMS}.find_cases", "folder": "@dataset_dir", "channels": network.in_chans},
        "network_def": {"_target_": "vitrim.load_model", "path": "@model_dir"},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "image_only": True, "reader": reader},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {
                    "_target_": f"{TRANSFORMS}.PrepareSlicesd",
                    "keys": "image",
                    "folder": "@model_dir",
                    "channels": network.in_chans,
                },
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "SliceInferer",
            "spatial_dim": 0,
            "roi_size": list(network.image_size),
            "sw_batch_size": BATCH,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_postfix": "",
                    "output_dtype": "$numpy.uint8",
                    "resample": False,
                    "separate_folder": False,
                },
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "initialize": ["$monai.utils.set_determinism(seed=0)"],
        "run": ["$@evaluator.run()"],
    }


def _readme(network: Network, recipe: Recipe) -> str:
    rows = "\n".join(f"| {value} | {name} |" for value, name in recipe.classes.items())
    return f"""# {network.title} with {network.depth} transformer blocks

A 2D segmentation network, written by vitrim {__version__} as a MONAI bundle. It needs vitrim, which reads the volumes
and prepares their slices as in the training of the network:

    pip install 'vitrim[bundle]'
    python -m monai.bundle run --config_file configs/inference.json --bundle_root . --dataset_dir DATA --output_dir OUT

`DATA` is a folder of volumes (NIfTI, NRRD, MetaImage, DICOM series). `OUT` gets a label map for each, on its own grid.
`models` is the network as vitrim writes it: `vitrim predict models DATA -o OUT` gives the same label maps.

| label | structure |
|---:|---|
{rows}

Authors, copyright and licence are not stated: fill them in in `configs/metadata.json` before you publish the bundle.
"""
