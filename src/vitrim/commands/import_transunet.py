"""`vitrim import transunet`: a checkpoint of the public TransUNet code as one of ours."""

from __future__ import annotations

from pathlib import Path

from vitrim.commands.provenance import new_folder
from vitrim.models.checkpoint import save_model
from vitrim.models.transunet import TransUNet
from vitrim.models.transunet_release import read_transunet


def import_transunet(checkpoint: str | Path, out: str | Path, *, channels: int = 1) -> TransUNet:
    """Turn a checkpoint of the public TransUNet code (R50-ViT) into the new folder `out`; return the network.

    The same as the command `vitrim import transunet`. Number of blocks (up to 12), of classes, width of the ViT and
    image size follow from the tensors. Images are square, and of one channel (which the network repeats to three)
    unless `channels` says otherwise.

    Raises:
        InputError: if the file cannot be read, or a tensor is missing, surplus or of another shape; it is named.

    Example:
        >>> import vitrim
        >>> try:
        ...     vitrim.import_transunet("no-such-file.pth", "imported")
        ... except vitrim.InputError as error:
        ...     print(str(error).split(":")[0])
        cannot read no-such-file.pth as a state dict of tensors
    """
    out = new_folder(out)
    network = read_transunet(Path(checkpoint), channels)
    save_model(network, out)
    return network
