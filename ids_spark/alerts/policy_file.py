"""What a hospital decides in YAML files of its own, such as severities: read strictly, every fault at once."""

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ids_spark.base.errors import InputError
from ids_spark.lake.filesystem import read_bytes

_Read = TypeVar("_Read", bound=BaseModel)


def read_checked(
    uri: str, model: type[_Read], error: type[InputError], example: str, context: Mapping[str, Any] | None = None
) -> _Read:
    """Return a YAML file as what `model` describes.

    A file that holds a list, or nothing, gives the field `entries` where the model has one. A key that stands twice is
    a fault: YAML itself would silently take the last.

    Args:
        uri: The file, local or a URI.
        model: What is expected.
        error: What is raised.
        example: A file that shows how it is done; named in messages.
        context: For the validators of `model`.

    Raises:
        InputError: as `error`; lists every fault.
    """
    try:
        content = yaml.load(read_bytes(uri).decode(), Loader=_Strict)
    except OSError as fault:
        raise error(f"{uri}: {fault.strerror or fault}; expected a YAML file such as {example}") from fault
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise error(f"{uri}: not YAML: {' '.join(str(fault).split())}") from fault
    if "entries" in model.model_fields and (content is None or isinstance(content, list)):
        content = {"entries": content or []}
    try:
        return model.model_validate(content, context=dict(context or {}))
    except ValidationError as found:
        faults = [_described(fault) for fault in found.errors()]
    raise error("{} has {} fault(s):\n  {}\n  See {}".format(uri, len(faults), "\n  ".join(faults), example))


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
