"""Every setting with its type, default and meaning, from the models of the configuration and their docstrings."""

import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from ids_spark.config.settings import Config

_LONGEST: Final = 60
_OF_EACH_MODEL: Final = "train.<model>"
"""The key of the section that every architecture has under its own name."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: Its full name, such as `train.epochs`.
        type: What it accepts, in words.
        default: Its default as in YAML; None: not set, or required.
        required: Whether a section must name it.
        choices: All values, where they are listed; else empty.
        meaning: From the docstring of its section.
    """

    key: str
    type: str
    default: Any
    required: bool
    choices: tuple[Any, ...]
    meaning: str

    def shown_default(self) -> str:
        """Return the default for people, in at most some words."""
        if self.required:
            return "required"
        if self.default in (None, ""):
            return "not set" if self.default is None else "empty"
        text = json.dumps(self.default, default=str, ensure_ascii=False)
        return f"{len(self.default)} entries" if len(text) > _LONGEST else text.strip('"')


def sections() -> dict[str, type[BaseModel]]:
    """Return every section of the configuration by its key; the root has the key ''."""
    found: dict[str, type[BaseModel]] = {"": Config}
    for key, model in list(_inside("", Config)):
        found[key] = model
        for inner, nested in _inside(f"{key}.", model):
            found[_OF_EACH_MODEL if key == "train" else inner] = nested
    return found


def settings_of(key: str) -> list[Setting]:
    """Return the settings of one section, in their order, without sections inside it.

    Raises:
        KeyError: there is no such section.
    """
    model = sections()[key]
    meaning, within = _meanings(model), {name.rpartition(".")[2] for name, _ in _inside("", model)}
    schema = model.model_json_schema()
    prefix, found = f"{key}." if key else "", []
    for name, field in model.model_fields.items():
        if name in within and not isinstance(field.get_default(), tuple):
            continue  # a section of its own
        found.append(
            Setting(
                f"{prefix}{name}",
                _in_words(schema["properties"][name], schema.get("$defs", {})),
                None if field.is_required() else field.get_default(call_default_factory=True),
                field.is_required(),
                tuple(_choices(field.annotation)),
                meaning[name],
            )
        )
    return found


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each name in the section `Attributes` of a docstring."""
    _, _, attributes = (inspect.getdoc(model) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


def _inside(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if inspect.isclass(part) and issubclass(part, BaseModel):
                yield f"{prefix}{name}", part


def _choices(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [choice for part in typing.get_args(annotation) for choice in _choices(part)]


def _in_words(schema: Mapping[str, Any], defined: Mapping[str, Any]) -> str:
    """Return what a JSON schema accepts, in words."""
    if "$ref" in schema:
        return _in_words(defined[schema["$ref"].rpartition("/")[2]], defined)
    if "anyOf" in schema:
        return " or ".join(_in_words(each, defined) for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    kind = schema.get("type")
    if kind == "array":
        each = schema.get("items") or schema["prefixItems"][0]  # a tuple of a fixed length has equal parts
        return f"list of: {_in_words(each, defined)}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"mapping to: {_in_words(values, defined)}" if values else f"section {schema.get('title', '')}".strip()
    if kind in ("integer", "number"):
        return " ".join([str(kind), *_bounds(schema)])
    if kind == "boolean":
        return "true | false"
    return str(schema.get("format", "text"))


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    if {"minimum", "maximum"} <= schema.keys():
        yield f"{_plain(schema['minimum'])} to {_plain(schema['maximum'])}"
        return
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    for name in (name for name in signs if name in schema):
        yield f"{signs[name]} {_plain(schema[name])}"


def _plain(bound: float) -> str:
    return f"{bound:g}" if abs(bound) < 100_000 else f"{bound:,.0f}"
