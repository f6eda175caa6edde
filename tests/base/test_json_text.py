import json
import time

import pytest

from ids_spark.base import json_text


def test_it_reads_what_python_writes() -> None:
    content = {"a": [1, -2.5, True, None, "é\u2028"], "b": {"c": {}}, "d": [2**63 - 1, -(2**63)], "e": 1e308}
    assert json_text.loads(json.dumps(content)) == content
    assert json_text.loads(json.dumps(content).encode()) == content
    assert json_text.loads("3") == 3


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('{"b": [{"a": 1, "c": 2, "a": 1}]}', "'a' is there twice"),
        ("NaN", "NaN is not a finite number"),
        ("[-Infinity]", "-Infinity is not a finite number"),
        ("1e999", "too large"),
        (f"{2**63}", "more than 64 bits"),
        (f"-{'9' * 100_000}", "more than 64 bits"),
        ("[" * 65 + "]" * 65, "nested too deeply"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "[]," * json_text.MOST_PARTS + "[]]", "objects and lists"),
        (" " * (json_text.MOST_BYTES + 1), "bytes of JSON"),
        ("{", "Expecting"),
        ("", "Expecting"),
        (b"\xff", "utf-8"),
        (b'"\xed\xa0\x80"', "utf-8"),
    ],
    ids=lambda each: str(each)[:20],
)
def test_what_is_no_json_or_too_much_of_it_is_refused(text: str | bytes, finding: str) -> None:
    with pytest.raises(ValueError, match=finding):
        json_text.loads(text)
    if isinstance(text, bytes):
        with pytest.raises(ValueError, match=finding):
            json_text.checked(text)


def test_a_key_that_is_there_twice_among_many_is_found_at_once() -> None:
    keys = [f'"k{i}":1' for i in range(200_000)]
    start = time.process_time()
    with pytest.raises(ValueError, match="key 'k199999' is there twice"):
        json_text.loads("{" + ",".join([*keys, keys[-1]]) + "}")
    assert time.process_time() - start < 20  # a comparison of each key with each takes half an hour
