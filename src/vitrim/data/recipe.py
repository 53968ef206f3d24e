"""The recipe of a network: the preprocessing of its images, and the names of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitrim.config.reading import explain
from vitrim.config.schema import DataConfig
from vitrim.data.readers import LAYOUTS
from vitrim.errors import InputError, WeightsError
from vitrim.files import read_json

RECIPE = "preparation.json"
"""Name of the file next to a checkpoint that holds its recipe."""


@dataclass(frozen=True)
class Recipe:
    """The data configuration that prepares a network's images, and the names of its output classes."""

    data: DataConfig
    classes: dict[int, str]

    @classmethod
    def parse(cls, content: Any, where: str) -> Recipe:
        """Read the recipe that a study stores next to a checkpoint (`preparation.json`).

        `where` names the source in messages. Raises WeightsError if `content` is not a recipe.
        """
        try:
            return cls(
                DataConfig.model_validate(content["data"]), {int(n): str(c) for n, c in content["classes"].items()}
            )
        except ValidationError as error:
            raise WeightsError(f"{where}: {explain(error, DataConfig)}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{where} is not a recipe that vitrim wrote: expected `data` and `classes`") from error

    def dump(self) -> dict[str, Any]:
        """Return the recipe as JSON values, which `parse` reads."""
        return {
            "data": self.data.model_dump(mode="json", exclude={"phantom", "split_file"}),
            "classes": {str(value): name for value, name in self.classes.items()},
        }


def stored_recipe(checkpoint: Path) -> Recipe | None:
    """Read the recipe next to a checkpoint; None if there is none. Raises InputError if the file is damaged."""
    path = checkpoint / RECIPE
    return Recipe.parse(read_json(path), str(path)) if path.is_file() else None


def not_prepared(checkpoint: Path) -> str:
    """Say that a checkpoint does not tell how its images are prepared, and what to do."""
    return (
        f"{checkpoint} does not say how its images are prepared (no preparation.json); give --study: a preset or a "
        f"study file with a data section"
    )


def unnamed(number: int) -> str:
    """Return the name of a class that nobody named."""
    return f"class {number}"


def recipe_for(
    checkpoint: Path, stored: Recipe | None, study: DataConfig | None, image_size: tuple[int, int], num_classes: int
) -> Recipe:
    """Return how to prepare images for a network: as `study` says, or as stored with the checkpoint if it is None.

    Raises InputError if neither says it, or if the image size or the classes do not fit the network.
    """
    recipe = stored
    if study is not None:
        names = recipe.classes if recipe else class_names(study)
        recipe = Recipe(study, {n: names.get(n, unnamed(n)) for n in range(num_classes)})
    if recipe is None:
        raise InputError(not_prepared(checkpoint))
    if recipe.data.image_size != image_size:
        raise InputError(f"{checkpoint} takes images of {image_size}, the study prepares {recipe.data.image_size}")
    if sorted(recipe.classes) != list(range(num_classes)):
        raise InputError(f"{checkpoint} has {num_classes} classes, its preparation names {len(recipe.classes)}")
    return recipe


def class_names(data: DataConfig) -> dict[int, str]:
    """Return the class names that a data configuration gives without reading data: the layout's, or its `classes`."""
    return LAYOUTS[data.layout].classes or dict(enumerate(["background", *(data.classes or [])]))
