"""The tables of settings in jobs/README.md, made from the models and their docstrings.

python -m tests.support.settings_docs    # rewrites them
"""

import inspect
import json
import re
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ids_spark.config.settings import Config

README = Path(__file__).parents[2] / "jobs" / "README.md"
_BLOCK = re.compile(r"(<!-- settings: (?P<key>[\w.<>]*) -->\n).*?(<!-- end -->)", re.DOTALL)
_LONGEST = 60


def with_settings(text: str) -> str:
    """Return the text with every table between `<!-- settings: KEY -->` and `<!-- end -->` generated again."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{table(block['key'])}\n{block[3]}", text)


def documented(text: str) -> set[str]:
    """Return the keys whose tables a text holds."""
    return {block["key"] for block in _BLOCK.finditer(text)}


def sections() -> dict[str, type[BaseModel]]:
    """Return every section of the configuration by its key; the root has the key ''."""
    found: dict[str, type[BaseModel]] = {"": Config}
    for key, model in list(_inside("", Config)):
        found[key] = model
        for inner, nested in _inside(f"{key}.", model):
            found["train.<model>" if key == "train" else inner] = nested
    return found


def table(key: str) -> str:
    """Return the settings of one section as a Markdown table: name, default, meaning."""
    model = sections()[key]
    meaning, within = meanings(model), {name.rpartition(".")[2] for name, _ in _inside("", model)}
    prefix = f"{key}." if key else ""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        if name in within and not isinstance(field.get_default(), tuple):
            continue  # a section of its own
        default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        text, choices = meaning[name].replace("|", r"\|"), [f"`{choice}`" for choice in _choices(field.annotation)]
        if not all(choice in text for choice in choices):
            text += f" One of {', '.join(choices)}."
        lines.append(f"| `{prefix}{name}` | {default} | {text} |")
    return "\n".join(lines) + "\n"


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each name in the section `Attributes` of a docstring."""
    _, _, attributes = (inspect.getdoc(model) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


def _inside(prefix: str, model: type[BaseModel]) -> typing.Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if inspect.isclass(part) and issubclass(part, BaseModel):
                yield f"{prefix}{name}", part


def _choices(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [choice for part in typing.get_args(annotation) for choice in _choices(part)]


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    if value in (None, ""):
        return "not set" if value is None else "empty"
    if len(text) > _LONGEST:
        return f"{len(value)} entries"
    return f"`{text.strip(chr(34))}`"


if __name__ == "__main__":
    README.write_text(with_settings(README.read_text()))
