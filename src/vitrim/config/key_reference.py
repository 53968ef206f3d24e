"""All keys of a configuration, from the code that checks them: as a JSON schema for editors, and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vitrim.config.reading import presets
from vitrim.config.schema import StudyConfig

Schema = dict[str, Any]

BASE = (
    "A preset whose keys hold where this file gives no other. A mapping changes it key by key, any other value "
    "replaces its value, and null takes a key out."
)

PAGE = """# All keys of a configuration

This page is generated from the code that checks a configuration: `vitrim study schema --markdown > \
docs/configuration.md`.

A study is a YAML file. `vitrim study new --data DIR` writes one that fits a data set. Keys without a default must \
be given.

**Few changes to a preset.** `base` names a preset; the other keys change it. A mapping changes key by key, any \
other value is replaced, and `null` takes a key out. `steps` takes the place of `epochs` and `vit` that of `size`, \
and the other way round:

```yaml
base: ibsr18
name: ibsr18-short
training: {steps: 200}
networks: {cats2d: null}
```

**On the command line.** `vitrim study ibsr18 --set training.steps=200 --set data.clip=[-125,275]` changes keys in \
the same way; `vitrim train` has the option too. The other options ([study.md](study.md)) win.

**In an editor.** `vitrim study schema -o study.schema.json` writes a JSON schema. With `# yaml-language-server: \
$schema=study.schema.json` as the first line of a study, editors that know YAML language servers complete keys and \
show these descriptions.
"""


def json_schema() -> Schema:
    """Return the JSON schema (draft 2020-12) of a study's file, with a description of every key."""
    schema = StudyConfig.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        _tidy(part)
    for part in (schema, *schema["$defs"].values()):
        for field in part["properties"].values():  # a key that is a section says what the section says
            for name in _named(field):
                field.setdefault("description", schema["$defs"][name]["description"])
    needed = schema.pop("required")
    schema["properties"] = {"base": {"enum": presets(), "description": BASE}, **schema["properties"]}
    schema["anyOf"] = [{"required": ["base"]}, {"required": needed}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "vitrim study"}


def as_text(schema: Schema) -> str:
    """Return a schema as the text of a file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def markdown_page() -> str:
    """Return docs/configuration.md: one table for each section of a configuration."""
    schema = json_schema()
    needed = {*schema["anyOf"][1]["required"]}
    parts = [PAGE]
    for name, section in _sections(schema, schema):
        title = f"`{name}`" if name else "The study"
        rows = [
            f"| `{key}` | {_values(field, schema)} | {_default(field, key in section.get('required', needed))} "
            f"| {_cell(field.get('description', ''))} |"
            for key, field in section["properties"].items()
        ]
        intro = f"{section['description']}\n\n" if name else ""
        parts.append("\n".join([f"## {title}\n\n{intro}| key | value | default | meaning |\n|---|---|---|---|", *rows]))
    return "\n".join(f"{part.rstrip()}\n" for part in parts)


def _tidy(part: Schema) -> None:
    """Bring the schema of a configuration into the form that editors use best."""
    part.pop("title", None)
    part["description"] = " ".join(part["description"].split("\n\n")[0].split())
    for field in part.get("properties", {}).values():
        field.pop("title", None)
        if "description" in field:
            field["description"] = " ".join(field["description"].split())
        if "enum" in field.get("propertyNames", {}):  # an editor completes properties, but not the names of others
            names, kind = field.pop("propertyNames")["enum"], field["additionalProperties"]
            field["properties"] = {name: {"anyOf": [kind, {"type": "null"}]} for name in names}
            field["additionalProperties"] = False


def _sections(part: Schema, schema: Schema, name: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield a section and those below it, with their dotted names."""
    yield name, part
    for key, field in part["properties"].items():
        where = f"{name}.{key}" if name else key
        below = {**field, "$ref": next(iter(_named(field)), "")}
        if "properties" in field:
            below, where = {"$ref": next(iter(_named(next(iter(field["properties"].values())))))}, f"{where}.NAME"
        if below["$ref"]:
            yield from _sections(schema["$defs"][below["$ref"]], schema, where)


def _named(field: Schema) -> list[str]:
    """Return the names of the sections to which a key refers."""
    parts = [field, *field.get("anyOf", ())]
    return [part["$ref"].rsplit("/", 1)[-1] for part in parts if "$ref" in part]


def _values(field: Schema, schema: Schema) -> str:
    """Say which values a key may have."""
    if "$ref" in field:
        return "section"
    if "anyOf" in field:
        kinds = dict.fromkeys(_values(part, schema) for part in field["anyOf"] if part.get("type") != "null")
        return " or ".join(kinds)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        items = field.get("prefixItems") or [field.get("items", {})]
        what = " and ".join(dict.fromkeys(_values(item, schema) for item in items))
        count = field.get("maxItems")
        return f"list of {count}: {what}" if count else f"list of {what}"
    if field.get("type") == "object" and "properties" not in field:
        return f"{_values(field['propertyNames'], schema)}, each with its parameters"
    if field.get("type") == "object":
        return "section for each of " + ", ".join(f"`{name}`" for name in field["properties"])
    names = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {field[key]}" for key, sign in limits.items() if key in field]
    said += [f"a multiple of {field['multipleOf']}"] if "multipleOf" in field else []
    return " ".join([names[field["type"]], ", ".join(said)]).strip()


def _default(field: Schema, needed: bool) -> str:
    if needed:
        return "must be given"
    value = field.get("default")
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, float):
        return f"`{value:.4g}`"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
