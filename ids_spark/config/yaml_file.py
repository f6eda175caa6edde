"""Reads all YAML (configuration, `--set` values, policies): refuses duplicate keys, lists every fault."""

import datetime as dt
import difflib
import re
import typing
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ids_spark.base import whole_file
from ids_spark.base.errors import InputError

_Read = TypeVar("_Read", bound=BaseModel)
MOST_BYTES: Final = 2 << 20
"""Of a file; PyYAML takes 4 s for a million bytes."""
_MOST_NODES: Final = 100_000  # the longest policy has some thousand
_LONGEST_REASON: Final = 300
_MOST_FAULTS: Final = 20
_LONGEST_FAULT: Final = 800
_TIME: Final = "a time with its zone, such as 2026-11-24T07:05:00Z"
_EXPECTED: Final = {"date_": "a date, YYYY-MM-DD", "datetime_": _TIME, "timezone_": _TIME}
"""What is expected instead of a fault of pydantic, by the start of its type."""
_UNREADABLE: Final = (ValueError, TypeError, OverflowError, RecursionError)
"""Errors of PyYAML for a value that its tag does not allow, such as `!!float x`, and for content nested too deeply."""


def read(name: str, error: type[InputError]) -> Any:
    """Return the content of a local YAML file.

    Raises:
        InputError: (of class `error`) it cannot be read or is not YAML; or it has more than `MOST_BYTES`.
    """
    try:
        return parse(whole_file.read(name, MOST_BYTES), name, error)
    except OSError as fault:
        raise error(f"{name}: {fault.strerror or fault}; expected a YAML file") from fault


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
        return _loaded(content.decode())
    except UnicodeDecodeError as fault:
        reason = f"not UTF-8 text, {fault.reason} at byte {fault.start}; save it as UTF-8"
        raise error(f"{where}: not YAML: {reason}") from fault
    except (yaml.YAMLError, *_UNREADABLE) as fault:
        raise error(f"{where}: not YAML: {_reason(fault)}") from fault


def parse_value(text: str, where: str, error: type[InputError]) -> Any:
    """Return the value of a setting from a command line: YAML, or the text itself if it is not valid YAML.

    A text without quotes has no comment: `/data/run #3` is a whole path.

    Raises:
        InputError: (of class `error`) it has a duplicate key, or aliases that repeat content too often.
    """
    try:
        value = _loaded(text)
        cut = isinstance(value, str) and re.match(rf"{re.escape(value)}\s+#", text)
        return text if cut else value
    except (DuplicateKey, TooManyNodes) as fault:
        raise error(f"{where}: {fault.problem}") from fault
    except (yaml.YAMLError, *_UNREADABLE):
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
        count, faults = found.error_count(), described(found, model)
    raise error(f"{where} has {count} fault(s):", *faults, f"See {example}")


def described(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one line for each fault: its path, the expected value and the found value.

    The path `raised.#2.to` is the key `to` of the second entry of `raised`. For an unknown key the line lists the known
    keys and the most similar one. Of many faults the first are listed; a long line is cut.
    """
    faults = error.errors()
    lines = [_described(fault, model) for fault in faults[:_MOST_FAULTS]]
    lines = [line if len(line) <= _LONGEST_FAULT else f"{line[:_LONGEST_FAULT]}…" for line in lines]
    return [*lines, *([f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else [])]


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
    found = str(fault["input"]) if isinstance(fault["input"], dt.date) else repr(fault["input"])
    expected = next((text for kind, text in _EXPECTED.items() if fault["type"].startswith(kind)), None)
    if expected is not None:
        return f"{where}found {found[:80]}; expected {expected}"
    return f"{where}{fault['msg']}; found {found[:80]}"


class DuplicateKey(yaml.constructor.ConstructorError):
    """Raised when a mapping has a key more than once."""


class TooManyNodes(yaml.constructor.ConstructorError):
    """Raised when a file has more values than any policy: aliases that repeat aliases, or one that contains itself."""


class _Strict(yaml.SafeLoader):
    """Refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping whose keys are all different."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        times = Counter(key for key in keys if isinstance(key, Hashable))
        duplicates = sorted(str(key) for key, n in times.items() if n > 1)
        if duplicates:
            raise DuplicateKey(None, None, f"duplicate key: {', '.join(duplicates)}", node.start_mark)
        return super().construct_mapping(node, deep)


def _loaded(text: str) -> Any:
    """Return the content of YAML text.

    Raises:
        YAMLError: it is not YAML, has a duplicate key or too many values.
        ValueError, TypeError, OverflowError, RecursionError: see `_UNREADABLE`.
    """
    loader = _Strict(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _nodes(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values of a node with every alias written out.

    Raises:
        TooManyNodes: there are more than `_MOST_NODES`, or an alias contains itself.
    """
    if id(node) not in known:
        known[id(node)] = _MOST_NODES + 1  # until it is counted: found again, it contains itself
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_nodes(child, known) for child in flat)
    if known[id(node)] > _MOST_NODES:
        raise TooManyNodes(None, None, f"more than {_MOST_NODES:,} values, or an alias in itself", node.start_mark)
    return known[id(node)]


def _reason(fault: Exception) -> str:
    """Return why a text is not YAML, in one line."""
    if isinstance(fault, RecursionError):
        return "nested too deeply"
    reason = " ".join(str(fault).split())
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"


def _section(model: Any, path: Sequence[int | str]) -> Any:
    """Return the model of the section at a path of keys; None if there is none."""
    for part in path:
        fields = getattr(model, "model_fields", {})
        kind = fields[part].annotation if part in fields else model
        model = next((a for a in (kind, *typing.get_args(kind)) if hasattr(a, "model_fields")), None)
    return model
