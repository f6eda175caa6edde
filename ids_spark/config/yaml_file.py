"""YAML of configuration and policies: read strictly, every fault at once."""

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ids_spark.base.errors import InputError

_Read = TypeVar("_Read", bound=BaseModel)


def parse(content: bytes, where: str, error: type[InputError]) -> Any:
    """Return what a YAML file says.

    A key that stands twice is a fault: YAML itself would silently take the last.

    Args:
        content: Of the file, in UTF-8.
        where: Names the file in messages.
        error: What is raised.

    Raises:
        InputError: as `error`; it is not YAML, or a key stands twice.
    """
    try:
        return yaml.load(content.decode(), Loader=_Strict)
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise error(f"{where}: not YAML: {' '.join(str(fault).split())}") from fault


def check(
    content: Any,
    model: type[_Read],
    where: str,
    error: type[InputError],
    example: str,
    context: Mapping[str, Any] | None = None,
) -> _Read:
    """Return the content of a policy file as what `model` describes.

    A file that holds a list, or nothing, gives the field `entries` where the model has one.

    Args:
        content: From `parse`.
        model: What is expected.
        where: Names the file in messages.
        error: What is raised.
        example: A file that shows how it is done; named in messages.
        context: For the validators of `model`.

    Raises:
        InputError: as `error`; lists every fault.
    """
    if "entries" in model.model_fields and (content is None or isinstance(content, list)):
        content = {"entries": content or []}
    try:
        return model.model_validate(content, context=dict(context or {}))
    except ValidationError as found:
        faults = [_described(fault) for fault in found.errors()]
    raise error("{} has {} fault(s):\n  {}\n  See {}".format(where, len(faults), "\n  ".join(faults), example))


class _Strict(yaml.SafeLoader):
    """Refuses keys that stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping whose keys are all different."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def _described(fault: Any) -> str:
    """Return one fault with its place: `raised.#2.to` is the key `to` of the second of `raised`."""
    path = [f"#{part + 1}" if isinstance(part, int) else str(part) for part in fault["loc"] if part != "[key]"]
    where = f"{'.'.join(path)}: " if path else ""
    if fault["type"] == "extra_forbidden":
        return f"{where}unknown key"
    if fault["type"] == "missing":
        return f"{where}missing"
    if fault["type"] == "value_error":
        return f"{where}{fault['ctx']['error']}"
    return f"{where}{fault['msg']}; found {str(fault['input'])[:80]!r}"
