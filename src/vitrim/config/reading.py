"""From YAML and options to a configuration, with one line that says what is wrong with them."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vitrim.config.names import DecoderForm, RuleName
from vitrim.config.schema import DataConfig, StudyConfig
from vitrim.config.settings import merged, read_settings
from vitrim.errors import ConfigurationError

MOST_NUMBERS = 1000
"""Longest list of numbers in an option."""

MOST_PROBLEMS = 5
"""Number of wrong keys that a message names."""

Study = str | Path | DataConfig
"""A preset, the path of a YAML file, or a data section: how the images of a data set are prepared."""


def presets() -> list[str]:
    """Names of the studies that come with the package."""
    folder = resources.files("vitrim") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_study(source: str | Path, settings: Sequence[str] = ()) -> StudyConfig:
    """Read a study from the name of a preset or the path of a YAML file, and change it by `settings` (`--set`).

    Raises ConfigurationError, which says what is wrong with it.
    """
    source = str(source)
    if source in presets():
        text = _preset(source)
    elif Path(source).is_file():
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read {source}: {error}") from error
    else:
        hint = suggestion(source, presets())
        raise ConfigurationError(
            f"no such study: {source!r} is neither a file nor a preset{hint}; the presets are {', '.join(presets())}"
        )
    return parse_study(text, source, settings)


def _preset(name: str) -> str:
    """Return the text of a study that comes with the package."""
    return (resources.files("vitrim") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def data_section(study: Study | None) -> DataConfig | None:
    """The data section of a study that is given by name, by path, or as it is; None for None."""
    return study if study is None or isinstance(study, DataConfig) else load_study(study).data


def parse_study(text: str, source: str, settings: Sequence[str] = ()) -> StudyConfig:
    """Make a study from YAML text. `source` is named in the ConfigurationError if that is not possible.

    The key `base` names a preset, whose keys hold where the text gives no other (`vitrim.config.settings.merged`).
    """
    try:
        content = yaml.load(text, _Loader)
    except Exception as error:  # beside YAMLError: numbers and dates that Python cannot make, too deep nesting
        raise ConfigurationError(f"{source} is not YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{source} does not hold a study: expected a mapping with name, data, networks, training"
        )
    if "base" in content:
        content = _over_base(content, source)
    if settings:
        content = merged(content, read_settings(settings, StudyConfig))
    try:
        return StudyConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {explain(error, StudyConfig)}") from error


def _over_base(content: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the preset that `content` names as its base, changed by the other keys of `content`."""
    base = content["base"]
    if not isinstance(base, str) or base not in presets():
        raise ConfigurationError(
            f"{source}: base: {short(base)} is unknown{suggestion(str(base)[:100], presets())}; "
            f"choose from {', '.join(presets())}"
        )
    return merged(yaml.safe_load(_preset(base)), {key: value for key, value in content.items() if key != "base"})


class _Loader(yaml.SafeLoader):
    """Reads YAML as `yaml.safe_load` does, but a key that is given twice is an error: YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"the key {twice[:80]!r} is given twice, {str(node.start_mark).strip()}")
        return super().construct_mapping(node, deep)


def source_config(source: str | Path | StudyConfig, settings: Sequence[str] = ()) -> StudyConfig:
    """A study that is given by name, by path, or as it is, changed by `settings`; ConfigurationError as above."""
    if not isinstance(source, StudyConfig):
        return load_study(source, settings)
    return source if not settings else _checked(merged(source.model_dump(), read_settings(settings, StudyConfig)))


def changed(study: StudyConfig, **changes: Any) -> StudyConfig:
    """A study with some keys replaced, checked again. ConfigurationError if the result is not possible."""
    content = study.model_dump()
    for key, value in changes.items():
        content[key] = {**content[key], **value} if key == "training" else value
    return _checked(content)


def _checked(content: dict[str, Any]) -> StudyConfig:
    try:
        return StudyConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(explain(error, StudyConfig)) from error


def study_folder(config: StudyConfig, out: str | Path | None) -> Path:
    """The folder of a study's results: `out`, or `runs/NAME`."""
    return Path("runs") / config.name if out is None else Path(out)


def study_config(
    source: str | Path | StudyConfig,
    seed: int | None = None,
    seeds: str | Sequence[int] | None = None,
    folds: int | None = None,
    depths: str | Sequence[int] | None = None,
    networks: str | Sequence[str] | None = None,
    init: str | Sequence[str] = (),
    devices: int | None = None,
    nodes: int | None = None,
    rule: RuleName | None = None,
    tries: int | None = None,
    noise_floor: bool | None = None,
    decoder: DecoderForm | None = None,
    vit: str | None = None,
    settings: Sequence[str] = (),
) -> StudyConfig:
    """A study with `settings`, then the options of `study`, in place of its own keys.

    Raises ConfigurationError if they are not possible.
    """
    config = source_config(source, settings)
    changes: dict[str, Any] = {"training": {}}
    if seed is not None:
        changes["seed"] = seed
    if seeds is not None:
        changes["seeds"] = whole_numbers(seeds, "--seeds") if isinstance(seeds, str) else list(seeds)
    if folds is not None:
        changes["folds"] = folds
    if depths is not None:
        changes["depths"] = whole_numbers(depths, "--depths") if isinstance(depths, str) else list(depths)
    if networks is not None:
        names = networks.split(",") if isinstance(networks, str) else networks
        changes["networks"] = _chosen(config, [name.strip() for name in names])
    given = {"rule": rule, "tries": tries, "noise_floor": noise_floor, "decoder": decoder}
    changes |= {name: value for name, value in given.items() if value is not None}
    changes |= with_vit(vit)
    if devices is not None:
        changes["training"]["devices"] = devices
    if nodes is not None:
        changes["training"]["nodes"] = nodes
    return changed(config, **changes, **start_of([init] if isinstance(init, str) else init))


def with_vit(vit: str | None) -> dict[str, Any]:
    """Keys of a study whose networks hold timm's ViT `vit` in place of the study's own; none for None."""
    return {} if vit is None else {"vit": vit, "size": None}


def start_of(init: Sequence[str]) -> dict[str, Any]:
    """Keys of a study that say what networks, and what truncated networks, start from."""
    truncated = [value for value in init if value in ("inherit", "distil")]
    whole = [value for value in init if value not in truncated]
    if len(truncated) > 1 or len(whole) > 1:
        raise ConfigurationError(
            f"--init: {' and '.join(truncated if len(truncated) > 1 else whole)} exclude each other"
        )
    changes: dict[str, Any] = {"truncated_from": truncated[0]} if truncated else {}
    if whole:
        changes["pretrained"] = {"scratch": False, "pretrained": True}.get(whole[0], whole[0])
    return changes


def _chosen(config: StudyConfig, wanted: Sequence[str]) -> dict[str, Any]:
    """Some of the study's networks, in the study's order."""
    for name in wanted:
        if name not in config.networks:
            raise ConfigurationError(
                f"--networks: the study {config.name} has no {name!r}; it has {', '.join(config.networks)}"
            )
    return {name: network.model_dump() for name, network in config.networks.items() if name in wanted}


def whole_numbers(text: str, option: str) -> list[int]:
    """Read `0,1,5` or `0..12`, or both. ConfigurationError, which names the option, if the text is neither."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*\.\.\s*(\d+))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise ConfigurationError(f"{option}: {text!r} is not a list of numbers such as 0,1,5 or 0..12")
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1)
        if len(numbers) > MOST_NUMBERS:
            raise ConfigurationError(f"{option}: {short(text)} are more than {MOST_NUMBERS} numbers")
        found += numbers
    return found


def checked_name(value: str, names: Any, what: str) -> Any:
    """Return `value` if it is one of the Literal `names`. Otherwise ConfigurationError with the nearest name."""
    known = get_args(names)
    if value not in known:
        raise ConfigurationError(
            f"{what} {value!r} is unknown{suggestion(value, known)}; choose from {', '.join(known)}"
        )
    return value


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say in one line which keys of a configuration of kind `model` are wrong, and why."""
    problems = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            *parents, key = item["loc"]
            problems.append(f"unknown key {where}{suggestion(str(key), _keys(model, parents))}")
        elif item["type"] == "missing":
            problems.append(f"{where} is missing")
        elif item["type"] == "literal_error" and isinstance(item["input"], str):
            known = re.findall(r"'([^']+)'", item["ctx"]["expected"])
            problems.append(
                f"{where}: {short(item['input'])} is unknown{suggestion(item['input'], known)}; "
                f"choose from {', '.join(known)}"
            )
        elif not where:  # several keys together, which the message names
            problems.append(message)
        else:
            problems.append(f"{where}: {message} (got {short(item['input'])})")
    more = len(problems) - MOST_PROBLEMS
    return "; ".join(problems[:MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def short(value: Any) -> str:
    """Return a value as text of at most a hundred characters. It is never built whole: it may be endless."""
    shallow = reprlib.Repr()
    shallow.maxlevel, shallow.maxstring, shallow.maxother = 2, 100, 100
    text = shallow.repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"


def suggestion(value: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest of the known names; nothing if none is near."""
    near = get_close_matches(value, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _keys(model: type[BaseModel], path: list[int | str]) -> list[str]:
    """Keys that a configuration knows at a place such as ("data", "phantom")."""
    kinds: list[Any] = [model]
    for part in path:
        fields = [kind.model_fields[part].annotation for kind in kinds if part in kind.model_fields]
        kinds = [kind for field in fields for kind in _models(field)] or kinds
    return [name for kind in kinds for name in kind.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation such as `dict[str, StudyNetwork] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]
