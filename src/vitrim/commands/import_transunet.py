"""`vitrim import transunet`: a checkpoint of the public TransUNet code as one of ours."""

from __future__ import annotations

from pathlib import Path

from vitrim.commands.provenance import IMPORT, new_folder, split_rule
from vitrim.config.reading import Study
from vitrim.config.schema import DataConfig
from vitrim.data.readers.synapse import CLASSES
from vitrim.data.recipe import RECIPE, recipe_for
from vitrim.data.split import Split
from vitrim.errors import ConfigurationError
from vitrim.files import replacing, write_json
from vitrim.models.checkpoint import write_model
from vitrim.models.network import Network
from vitrim.models.transunet import TransUNet
from vitrim.models.transunet_release import read_transunet

RELEASE = "transunet-release"
"""The preset that prepares images as the public code does."""


def import_transunet(
    checkpoint: str | Path, out: str | Path, *, channels: int = 1, study: Study | None = None
) -> TransUNet:
    """Turn a checkpoint of the public TransUNet code (R50-ViT) into the new folder `out`; return the network.

    The same as the command `vitrim import transunet`. Number of blocks (up to 12), of classes, width of the ViT and
    image size follow from the tensors. Images are square, and of one channel (which the network repeats to three)
    unless `channels` says otherwise.

    How images are prepared is stored with the network: as the data section of `study` says, by default as the public
    code prepares CT. Of a network of 9 classes it is then taken that these are the public code's, the organs of
    Synapse. The study's split is stored too: its held-out cases take no part in a recovery.

    Raises:
        InputError: if the file cannot be read, or a tensor is missing, surplus or of another shape; it is named. If
            images have several channels and `study` does not say how they are prepared.

    Example:
        >>> import vitrim
        >>> try:
        ...     vitrim.import_transunet("no-such-file.pth", "imported")
        ... except vitrim.InputError as error:
        ...     print(str(error).split(":")[0])
        cannot read no-such-file.pth as a state dict of tensors
    """
    out, checkpoint = new_folder(out), Path(checkpoint)
    network = read_transunet(checkpoint, channels)
    if study is None and channels != 1:
        raise ConfigurationError(
            f"the public code takes one channel, CT; say with --study how images of {channels} channels are prepared"
        )
    data, seed = split_rule(RELEASE if study is None else study)
    if study is None:
        data = _of_release(data, network)
    recipe = recipe_for(checkpoint, None, data, network.image_size, network.num_classes)
    split = None if data.split_file is None else Split.load(data.split_file, data.fold)
    with replacing(out) as folder:
        folder.mkdir()
        write_model(network, folder)
        write_json(folder / RECIPE, recipe.dump())
        write_json(folder / IMPORT, {"seed": seed, "split": None if split is None else split.dump()})
    return network


def _of_release(data: DataConfig, network: Network) -> DataConfig:
    """The public code's preparation at the network's image size; with Synapse's layout only for its 9 classes."""
    data = data.model_copy(update={"image_size": network.image_size})
    if network.num_classes == len(CLASSES):
        return data
    plain = DataConfig()
    return data.model_copy(update={"layout": plain.layout, "train": plain.train, "validation": plain.validation})
