"""Changes to a configuration before it is checked: keys over a preset, and `--set training.steps=200`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from vitrim.errors import ConfigurationError

ONE_OF = (("epochs", "steps"), ("size", "vit"))
"""Keys of which a configuration has one. A change that gives one of them takes the other out."""

NEAREST = 3
"""Number of known keys that an error about an unknown key names."""


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with `changes`: a mapping changes key by key, any other value is replaced, None is taken out."""
    result = dict(content)
    for first, second in ONE_OF:
        for given, other in ((first, second), (second, first)):
            if changes.get(given) is not None and other not in changes:
                result.pop(other, None)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(below := result.get(key), dict):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result


def read_settings(settings: Sequence[str], model: type[BaseModel]) -> dict[str, Any]:
    """Read settings such as `training.steps=200`, with a value in YAML, as changes to a configuration of kind `model`.

    Raises ConfigurationError, with the nearest keys, if a key is unknown, given twice, or has no value.
    """
    known = list(dotted_keys(model))
    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigurationError(f"--set {setting[:100]!r} has no value: write KEY=VALUE, as training.steps=200")
        if key not in known:
            near = _nearest(key, known)
            hint = f"; did you mean {' or '.join(near)}?" if near else "; docs/configuration.md lists all keys"
            raise ConfigurationError(f"--set: unknown key {key[:100]!r}{hint}")
        try:
            value = yaml.safe_load(text)
        except Exception as error:  # beside YAMLError: numbers and dates that Python cannot make, too deep nesting
            raise ConfigurationError(f"--set {key}: {text[:100]!r} is not YAML") from error
        *parents, last = key.split(".")
        here = changes
        for name in parents:
            here = here.setdefault(name, {})
            if not isinstance(here, dict):
                raise ConfigurationError(f"--set gives {key} and a key above it: give one of them")
        if last in here:
            raise ConfigurationError(f"--set gives {key} twice, or a key below it: give one of them")
        here[last] = value
    return changes


def dotted_keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield every key of a configuration of kind `model`, as `data`, `data.clip`, `networks.transunet.depths`."""
    for name, field in model.model_fields.items():
        yield above + name
        for names, below in _sections(field.annotation):
            for part in names:
                if part:
                    yield f"{above}{name}.{part}"
                yield from dotted_keys(below, f"{above}{name}.{part}." if part else f"{above}{name}.")


def _sections(annotation: Any) -> Iterator[tuple[Sequence[str], type[BaseModel]]]:
    """Yield the configurations that a key may hold, each with its names; one empty name if it has none."""
    arguments = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield ("",), annotation
    elif get_origin(annotation) is dict and get_origin(arguments[0]) is Literal:
        yield get_args(arguments[0]), arguments[1]
    elif get_origin(annotation) is not list:
        for part in arguments:
            yield from _sections(part)


def _nearest(key: str, known: Sequence[str]) -> list[str]:
    """Return the known keys that look like `key`, or whose last part does."""
    last = key.rsplit(".", 1)[-1]
    same = [one for one in known if one.rsplit(".", 1)[-1] == last]
    parts = get_close_matches(last, {one.rsplit(".", 1)[-1] for one in known}, n=1, cutoff=0.75)
    like = [one for one in known if one.rsplit(".", 1)[-1] in parts]
    return list(dict.fromkeys([*same, *get_close_matches(key, known, n=1, cutoff=0.75), *like]))[:NEAREST]
