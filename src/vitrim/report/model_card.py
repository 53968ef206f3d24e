"""README.md of a network on a model hub: its model card, and whether a card is still as vitrim wrote it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from vitrim.config.schema import DataConfig
from vitrim.report.tables import markdown_table

SIGNATURE = "<!-- Written by vitrim push. A card that was edited is kept. SHA-256 of the lines above: "
"""Begin of the last line of a card."""

PREPARED = ("axis", "image_size", "crop", "scaling", "voxel_size", "clip", "normalize")
"""Keys of the data section (docs/configuration.md) that say how images are prepared."""


@dataclass(frozen=True)
class NetworkFacts:
    """What the folder of a network says of it."""

    title: str
    depth: int
    full_depth: int
    images: tuple[int, ...]
    """Channels, height and width of the images."""
    parameters: int | None
    """None for a model of another library, whose code is not at hand."""
    classes: Mapping[int, str]
    """Empty if the folder names none."""
    data: DataConfig | None
    """How images are prepared, if the folder says it."""
    verdict: Sequence[str]
    """Sentences on how the number of blocks was decided; empty if the folder does not say it."""
    adapted: bool
    """Whether it is a model of another library, whose code the user must bring."""
    cases_known: bool
    """Whether the folder says on which cases the network was trained."""

    def in_words(self) -> str:
        """Return what the network is, in one line."""
        parts = [f"{self.title}, {self.depth} of {self.full_depth} blocks"]
        parts += [] if self.parameters is None else [f"{self.parameters:,} parameters"]
        parts += [f"{len(self.classes)} classes"] if self.classes else []
        return f"{', '.join(parts)}, images of {' × '.join(map(str, self.images))}"


def model_card(facts: NetworkFacts, repository: str, license: str | None, compressed: bool) -> str:
    """Return the card. `compressed`: whether compression.md lies beside it."""
    front: dict[str, object] = {"library_name": "vitrim", "pipeline_tag": "image-segmentation"}
    front |= {} if license is None else {"license": license}
    front["tags"] = ["vitrim", "image-segmentation", "medical-imaging", "vision-transformer"]
    rows = [
        ["network", facts.title],
        ["transformer blocks", f"{facts.depth} of {facts.full_depth}"],
        *([] if facts.parameters is None else [["parameters", f"{facts.parameters:,}"]]),
        ["images (channels × height × width)", " × ".join(map(str, facts.images))],
    ]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {repository.split('/')[-1]}",
        "A network for the segmentation of medical images, in the format of vitrim: tensors in `model.safetensors`, "
        "everything else as JSON.",
        markdown_table(["", ""], rows, [False, False]),
    ]
    if facts.classes:
        named = [[str(number), name] for number, name in sorted(facts.classes.items())]
        parts += ["## Classes", markdown_table(["value", "class"], named, [False, False])]
    parts += ["## How images are prepared", _preparation(facts.data)]
    said = [*facts.verdict, *(["[compression.md](compression.md) says what the cut saves."] if compressed else [])]
    if said:
        parts += ["## How many blocks", "\n".join(f"- {sentence}" for sentence in said)]
    parts += ["## Use", *_use(facts, repository)]
    if not facts.cases_known:
        parts.append("On which cases it was trained is not stored here: evaluate it on cases that it cannot have seen.")
    parts.append("It is a tool for research and no medical device.")
    text = "\n\n".join(parts) + "\n\n"
    return f"{text}{SIGNATURE}{_digest(text)} -->\n"


def is_untouched(card: str) -> bool:
    """Whether vitrim wrote `card` and nobody has changed it since."""
    text, found, digest = card.replace("\r\n", "\n").rpartition(SIGNATURE)
    return bool(found) and digest.strip() == f"{_digest(text)} -->"


def license_of(card: str) -> str | None:
    """The license that an untouched card names."""
    return yaml.safe_load(card.split("---")[1]).get("license")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _preparation(data: DataConfig | None) -> str:
    if data is None:
        return "This is not stored here: `vitrim predict` needs `--study` with a data section that says it."
    stored = data.model_dump(mode="json", include=set(PREPARED))
    rows = [[f"`{key}`", f"`{stored[key]}`"] for key in PREPARED if stored[key] is not None]
    return "\n\n".join(
        [
            "`vitrim predict` does it, as `preparation.json` says (the keys of the data section of a study):",
            markdown_table(["key", "value"], rows, [False, False]),
        ]
    )


def _use(facts: NetworkFacts, repository: str) -> list[str]:
    model = " --model PLACE" if facts.adapted else ""
    study = " --study STUDY" if facts.data is None else ""
    commands = [f"vitrim pull {repository} -o network", f"vitrim predict network IMAGES -o PREDICTIONS{model}{study}"]
    said = ["\n".join(f"    {command}" for command in commands)]
    if facts.adapted:
        said.append(
            f"Only the weights are here. `PLACE` is what builds the {facts.title}, as it was before it was truncated: "
            "`package.module:function` or `file.py:function`."
        )
    return said
