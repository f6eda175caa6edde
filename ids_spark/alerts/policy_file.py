"""Policies of the hospital, such as severities: YAML files on any file system that the lake may use."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from ids_spark.base.errors import InputError
from ids_spark.config.yaml_file import MOST_BYTES, check, parse
from ids_spark.lake.filesystem import read_bytes

_Read = TypeVar("_Read", bound=BaseModel)


def read_checked(
    uri: str, model: type[_Read], error: type[InputError], example: str, context: Mapping[str, Any] | None = None
) -> _Read:
    """Return the content of a policy file as `model`; arguments and errors as those of `yaml_file.check`."""
    try:
        content = read_bytes(uri, MOST_BYTES)
    except OSError as fault:
        raise error(f"{uri}: {fault.strerror or fault}; expected a YAML file such as {example}") from fault
    return check(parse(content, uri, error), model, uri, error, example, context)
