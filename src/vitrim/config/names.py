"""Every name that a user may type, in a configuration, on the command line or in Python."""

from __future__ import annotations

from typing import Literal

FULL_DEPTH = 12
"""Transformer blocks of a full network with a ViT of vitrim (paper, 3.2)."""

NetworkName = Literal["transunet", "cats2d", "unetr2d"]

NETWORK_TITLES: dict[str, str] = {"transunet": "TransUNet", "cats2d": "2D CATS", "unetr2d": "2D UNETR"}
"""The networks as the paper calls them."""
SHALLOWEST: dict[str, int] = {"transunet": 0, "cats2d": 0, "unetr2d": 1}
"""Smallest number of transformer blocks of each network."""

ViTSizeName = Literal["micro", "tiny", "small", "base"]
StemForm = Literal["timm", "release"]

LayoutName = Literal["decathlon", "ibsr18", "emidec", "synapse", "pictures"]
PhantomName = Literal["brain", "cardiac", "abdomen", "longrange", "chain"]
PhantomLayout = Literal["decathlon", "ibsr18", "emidec", "synapse", "synapse-raw"]

SliceAxis = Literal["sagittal", "coronal", "axial", "through-plane", 0, 1, 2]
Normalization = Literal["zscore", "unit", "none"]
Scaling = Literal["linear", "zoom"]
VoxelSize = Literal["sform", "pixdim"]
Schedule = Literal["constant", "cosine"]

Checkpoint = Literal["last", "best"]
"""Weights that a training ends with."""

AugmentationName = Literal["none", "light", "medical"]

SpatialTransform = Literal[
    "RandFlip",
    "RandAxisFlip",
    "RandRotate90",
    "RandRotate",
    "RandZoom",
    "RandAffine",
    "Rand2DElastic",
    "RandGridDistortion",
]
"""MONAI's random transforms of image and label."""

IntensityTransform = Literal[
    "RandGaussianNoise",
    "RandRicianNoise",
    "RandGaussianSmooth",
    "RandGaussianSharpen",
    "RandScaleIntensity",
    "RandShiftIntensity",
    "RandAdjustContrast",
    "RandHistogramShift",
    "RandBiasField",
    "RandGibbsNoise",
    "RandSimulateLowResolution",
    "RandCoarseDropout",
]
"""MONAI's random transforms of the image alone."""

TransformName = Literal[SpatialTransform, IntensityTransform]

DecoderForm = Literal["paper", "whole"]
"""Decoder of truncated 2D UNETR and 2D CATS: `paper` removes the scales whose tap is gone; `whole` keeps all scales."""

TruncatedStart = Literal["scratch", "inherit", "distil"]
"""What truncated networks of a study start from."""

DecidingMeasure = Literal[
    "globality",
    "distance_patches",
    "distance_pixels",
    "distance_mm",
    "self_share",
    "neighbourhood_share",
    "proximity_correlation",
    "entropy",
    "query_dependence",
    "rollout_globality",
]
"""Attention measures that can decide a depth. `vitrim.attention.measures.MEASURES` describes each of them."""

Head = Literal["mean", "max"]
"""The head-averaged attention, or the most global head."""

RuleName = Literal["exchange", "constant", "globality", "lasting", "rollout", "influence", "nested", "accuracy"]
"""Rules for the depth (`vitrim.compression.depth_rules`)."""

ExchangeForm = Literal["identity", "constant", "uniform"]
"""What takes the place of attention in a block (`vitrim.without_exchange`)."""

Criterion = Literal["first", "influence", "effect", "random"]
"""Pruning criteria: which blocks are kept (`vitrim.compression.block_selection`)."""

Recovery = Literal["none", "finetune", "distil"]
"""How a truncated network is trained on."""

CaseGroup = Literal["auto", "validation", "train", "tuning", "all"]
"""Which cases are evaluated. `auto`: those that the training held out; all cases if that is not known."""

Device = Literal["auto", "cpu", "gpu"]
TrainingPrecision = Literal["auto", "32-true", "tf32", "bf16-mixed", "16-mixed"]
"""Precision of a training, as Lightning names it. `auto`: bf16 where the hardware has it, else float32. `tf32` is for a
GPU: float32 with 10 bits of mantissa in products; `32-true` never uses it."""

Precision = Literal["auto", "float32", "tf32", "bf16", "fp16", "int8"]
"""Precision of a prediction. `auto`: bf16 where the hardware has it, else float32. `tf32` and `fp16` are for a GPU,
`int8` is for a CPU."""
