"""The recipe of a network: how images become its input, and what its classes are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitrim.config.reading import explain
from vitrim.config.schema import DataConfig
from vitrim.data.readers import LAYOUTS
from vitrim.errors import WeightsError
from vitrim.files import read_json

RECIPE = "preparation.json"
"""Name of the file beside a checkpoint that holds its recipe."""


@dataclass(frozen=True)
class Recipe:
    """How images become what the network takes, and what the classes of its output are called."""

    data: DataConfig
    classes: dict[int, str]

    @classmethod
    def parse(cls, content: Any, where: str) -> Recipe:
        """Read what a study stores beside a checkpoint (`preparation.json`). WeightsError if it is something else."""
        try:
            return cls(
                DataConfig.model_validate(content["data"]), {int(n): str(c) for n, c in content["classes"].items()}
            )
        except ValidationError as error:
            raise WeightsError(f"{where}: {explain(error, DataConfig)}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{where} does not hold what vitrim writes there: data and classes") from error

    def dump(self) -> dict[str, Any]:
        """The recipe as JSON; `parse` reads it back."""
        return {
            "data": self.data.model_dump(mode="json", exclude={"phantom", "split_file"}),
            "classes": {str(value): name for value, name in self.classes.items()},
        }


def stored_recipe(checkpoint: Path) -> Recipe | None:
    """Read the recipe beside a checkpoint. None if there is none."""
    path = checkpoint / RECIPE
    return Recipe.parse(read_json(path), str(path)) if path.is_file() else None


def class_names(data: DataConfig) -> dict[int, str]:
    """Class names that a data section gives without its data: those of the layout, or those in `classes`."""
    return LAYOUTS[data.layout].classes or dict(enumerate(["background", *(data.classes or [])]))
