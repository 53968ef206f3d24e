"""`vitrim import transunet`: a checkpoint of the public TransUNet code as one of ours."""

from __future__ import annotations

from pathlib import Path

from vitrim.commands.provenance import new_folder
from vitrim.config.reading import Study, data_section
from vitrim.data.recipe import RECIPE, recipe_for
from vitrim.files import replacing, write_json
from vitrim.models.checkpoint import write_model
from vitrim.models.transunet import TransUNet
from vitrim.models.transunet_release import read_transunet


def import_transunet(
    checkpoint: str | Path, out: str | Path, *, channels: int = 1, study: Study | None = None
) -> TransUNet:
    """Turn a checkpoint of the public TransUNet code (R50-ViT) into the new folder `out`; return the network.

    The same as the command `vitrim import transunet`. Number of blocks (up to 12), of classes, width of the ViT and
    image size follow from the tensors. Images are square, and of one channel (which the network repeats to three)
    unless `channels` says otherwise. `study`, whose data section says how images are prepared, is stored with the
    network; without it, every command that reads images asks for it.

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
    section = data_section(study)
    network = read_transunet(Path(checkpoint), channels)
    about = network.config
    recipe = None
    if section is not None:
        recipe = recipe_for(Path(checkpoint), None, section, about.image_size, about.num_classes)
    with replacing(out) as folder:
        folder.mkdir()
        write_model(network, folder)
        if recipe is not None:
            write_json(folder / RECIPE, recipe.dump())
    return network
