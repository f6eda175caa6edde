"""Reads all YAML (configuration, `--set` values, policies): refuses duplicate keys, lists every fault."""

import difflib
import typing
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ids_spark.base.errors import InputError

_Read = TypeVar("_Read", bound=BaseModel)


def parse(content: bytes, where: str, error: type[InputError]) -> Any:
    """Return the content of a YAML file.

    A duplicate key is a fault: PyYAML would silently use the last value.

    Args:
        content: Bytes of the file, in UTF-8.
        where: Name of the file, for messages.
        error: Class of the error to raise.

    Raises:
        InputError: (of class `error`) it is not YAML, or has a duplicate key.
    """
    try:
        return yaml.load(content.decode(), Loader=_Strict)
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise error(f"{where}: not YAML: {' '.join(str(fault).split())}") from fault


def parse_value(text: str, where: str, error: type[InputError]) -> Any:
    """Return the value of a setting from a command line: YAML, or the text itself if it is not valid YAML.

    Raises:
        InputError: (of class `error`) it has a duplicate key.
    """
    try:
        return yaml.load(text, Loader=_Strict)
    except DuplicateKey as fault:
        raise error(f"{where}: {fault.problem}") from fault
    except yaml.YAMLError:
        return text


def check(
    content: Any,
    model: type[_Read],
    where: str,
    error: type[InputError],
    example: str,
    context: Mapping[str, Any] | None = None,
) -> _Read:
    """Return the content of a policy file as an instance of `model`.

    If the model has a field `entries`, a file that is a list, or empty, is the value of that field.

    Args:
        content: From `parse`.
        model: Describes the expected content.
        where: Name of the file, for messages.
        error: Class of the error to raise.
        example: Path of an example file, for messages.
        context: Passed to the validators of `model`.

    Raises:
        InputError: (of class `error`) lists every fault.
    """
    if "entries" in model.model_fields and (content is None or isinstance(content, list)):
        content = {"entries": content or []}
    try:
        return model.model_validate(content, context=dict(context or {}))
    except ValidationError as found:
        faults = described(found, model)
    raise error("{} has {} fault(s):\n  {}\n  See {}".format(where, len(faults), "\n  ".join(faults), example))


def described(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one line for each fault: its path, the expected value and the found value.

    The path `raised.#2.to` is the key `to` of the second entry of `raised`. For an unknown key the line lists the known
    keys and the most similar one.
    """
    return [_described(fault, model) for fault in error.errors()]


def _described(fault: Any, model: type[BaseModel]) -> str:
    path = [part for part in fault["loc"] if part != "[key]"]
    where = ".".join(f"#{part + 1}" if isinstance(part, int) else str(part) for part in path)
    where = f"{where}: " if where else ""
    if fault["type"] == "extra_forbidden":
        known = getattr(_section(model, path[:-1]), "model_fields", {})
        similar = difflib.get_close_matches(str(path[-1]), known, n=1)
        return (
            f"{where}unknown key{f', did you mean {similar[0]!r}?' if similar else '.'} Known here: {', '.join(known)}"
        )
    if fault["type"] == "missing":
        return f"{where}missing"
    if fault["type"] == "value_error":
        return f"{where}{fault['ctx']['error']}"
    return f"{where}{fault['msg']}; found {repr(fault['input'])[:80]}"


class DuplicateKey(yaml.constructor.ConstructorError):
    """Raised when a mapping has a key more than once."""


class _Strict(yaml.SafeLoader):
    """Refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping whose keys are all different."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        duplicates = sorted({str(key) for key in keys if keys.count(key) > 1})
        if duplicates:
            raise DuplicateKey(None, None, f"duplicate key: {', '.join(duplicates)}", node.start_mark)
        return super().construct_mapping(node, deep)


def _section(model: Any, path: Sequence[int | str]) -> Any:
    """Return the model of the section at a path of keys; None if there is none."""
    for part in path:
        fields = getattr(model, "model_fields", {})
        kind = fields[part].annotation if part in fields else model
        model = next((a for a in (kind, *typing.get_args(kind)) if hasattr(a, "model_fields")), None)
    return model
