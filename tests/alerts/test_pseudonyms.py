import hashlib
import hmac
import logging
import os
import pickle
import traceback
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.alerts.pseudonyms import LENGTH, KeyUnusable, Pseudonyms, load_key
from ids_spark.base.errors import InputError
from ids_spark.config.score import ScoreConfig
from ids_spark.config.settings import Config

KEY = "0123456789abcdef" * 2  # invented, as every key and value here
OTHER = KEY[::-1]
VARIABLE = "IDS_SPARK_PSEUDONYM_KEY"


def expected(value, key=KEY):
    """Return the value by the other interface of Python's hmac."""
    return None if value is None else hmac.new(key.encode(), value.encode(), hashlib.sha256).hexdigest()[:LENGTH]


def settings(file=None, columns=("device_id",)):
    return ScoreConfig(pseudonymise=columns, pseudonym_key_file=None if file is None else str(file))


def refusal(given):
    with pytest.raises(KeyUnusable) as error:
        load_key(given)
    shown = "".join(traceback.format_exception(error.value))
    assert KEY[:20] not in shown
    return str(error.value)


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def key_file(tmp_path):
    def write(content, mode=0o600):
        path = tmp_path / "pseudonym.key"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    return write


def test_a_pseudonym_is_the_beginning_of_the_hmac_sha256():
    values = ["pump-1", "192.0.2.1", "Gerät 7", "pump-1", None, " pump-1"]
    found = Pseudonyms(KEY.encode()).pseudonymised(pa.array(values))
    assert found.type == pa.string()
    assert found.to_pylist() == [expected(value) for value in values]
    assert {len(value) for value in found.to_pylist() if value} == {32}


@pytest.mark.parametrize("length", [32, 63, 64, 65, 200])
def test_keys_of_every_length_give_the_hmac(length):
    key = "k" * length
    found = Pseudonyms(key.encode()).pseudonymised(pa.array(["pump-1", "x" * 500])).to_pylist()
    assert found == [expected("pump-1", key), expected("x" * 500, key)]


def test_a_published_test_vector_is_reproduced():
    # RFC 4231, test case 6: a key of 131 bytes 0xaa
    text = "Test Using Larger Than Block-Size Key - Hash Key First"
    [found] = Pseudonyms(b"\xaa" * 131).pseudonymised(pa.array([text])).to_pylist()
    assert found == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"[:LENGTH]


def test_null_and_empty_text_are_kept():
    assert Pseudonyms(KEY.encode()).pseudonymised(pa.array([None, "", "x"])).to_pylist() == [None, "", expected("x")]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["b", "a", None, "b"]),
        pa.array(["b", "a", None, "b"]).dictionary_encode(),
        pa.chunked_array([["b", "a"], [None, "b"]]),
        pa.chunked_array([pa.array(["b", "a"]).dictionary_encode(), pa.array([None, "b"]).dictionary_encode()]),
        pa.array(["b", "a", None, "b"], pa.large_string()),
        pa.array(["x", "b", "a", None, "b"])[1:],
    ],
)
def test_a_column_may_have_any_form(column):
    assert Pseudonyms(KEY.encode()).pseudonymised(column).to_pylist() == [expected(v) for v in ("b", "a", None, "b")]


def test_numbers_are_hashed_as_text():
    assert Pseudonyms(KEY.encode()).pseudonymised(pa.array([17, None])).to_pylist() == [expected("17"), None]
    assert Pseudonyms(KEY.encode()).pseudonymised(pa.array([], pa.string())).to_pylist() == []


def test_equal_values_stay_equal_in_every_column_under_one_key_and_differ_under_another():
    one, same, other = Pseudonyms(KEY.encode()), Pseudonyms(KEY.encode()), Pseudonyms(OTHER.encode())
    column = pa.array(["pump-1", "pump-2"])
    assert one.pseudonymised(column).equals(same.pseudonymised(pa.chunked_array([["pump-1"], ["pump-2"]])))
    assert not set(one.pseudonymised(column).to_pylist()) & set(other.pseudonymised(column).to_pylist())
    assert one.key_id == same.key_id != other.key_id
    assert len(one.key_id) == 8


def test_a_million_values_have_a_million_pseudonyms():
    numbers = np.arange(1_000_000)
    found = Pseudonyms(KEY.encode()).pseudonymised(pa.array(numbers).cast(pa.string()))
    assert len(found.unique()) == 1_000_000
    assert found[123_456].as_py() == expected("123456")


def test_a_key_file_takes_precedence_over_the_environment(monkeypatch, key_file):
    monkeypatch.setenv(VARIABLE, OTHER)
    column = pa.array(["pump-1"])
    assert load_key(settings()).pseudonymised(column).to_pylist() == [expected("pump-1", OTHER)]
    path = key_file(f"  {KEY}\n")  # surrounding white space is not part of the key
    assert load_key(settings(path)).pseudonymised(column).to_pylist() == [expected("pump-1")]


def test_another_variable_can_be_named(monkeypatch):
    monkeypatch.setenv("WARD_KEY", KEY)
    given = ScoreConfig(pseudonymise=("src_ip",), pseudonym_key_env="WARD_KEY")
    assert load_key(given).key_id == Pseudonyms(KEY.encode()).key_id


def test_no_key_is_read_if_nothing_is_pseudonymised(tmp_path):
    assert load_key(settings(tmp_path / "absent", columns=())) is None


def test_without_a_setting_a_key_is_read_where_there_is_one(monkeypatch, key_file):
    assert load_key(settings(columns=None)) is None
    monkeypatch.setenv(VARIABLE, OTHER)
    assert load_key(settings(columns=None)).key_id == Pseudonyms(OTHER.encode()).key_id
    assert load_key(settings(key_file(KEY), columns=None)).key_id == Pseudonyms(KEY.encode()).key_id


def test_one_text_has_the_pseudonym_of_its_column_also_if_it_is_no_unicode():
    key = Pseudonyms(KEY.encode())
    assert [key.of(text) for text in ("pump-1", "")] == [expected("pump-1"), ""]
    assert key.of("pump-\udce9") == expected("pump-\\udce9")


@pytest.mark.parametrize(("value", "state"), [(None, "absent"), ("", "empty"), (" \n", "empty")])
def test_an_absent_key_is_refused_with_the_columns_named(monkeypatch, value, state):
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    text = refusal(settings(columns=("device_id", "src_ip")))
    assert text.startswith("score.pseudonymise names device_id, src_ip, but there is no key: score.pseudonym_key_file")
    assert f"the environment variable {VARIABLE} is {state}; make one with: (umask 077; openssl rand -hex 32" in text


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o620, 0o500])
def test_a_file_that_others_may_open_is_refused_with_its_mode(key_file, mode):
    path = key_file(KEY, mode)
    assert refusal(settings(path)) == (
        f"{path} has mode {mode:04o}; only its owner may read a key: expected 0600 or 0400;"
        f" run chmod 600 {path}, and make a new key if others may have read this one"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_only_its_owner_may_read_is_read_also_through_a_link(key_file, tmp_path, mode):
    (tmp_path / "link").symlink_to(key_file(KEY, mode))
    assert load_key(settings(tmp_path / "link")).key_id == Pseudonyms(KEY.encode()).key_id


def test_a_short_key_is_refused_without_being_shown(monkeypatch, key_file):
    path = key_file(KEY[:31] + "\n")
    assert refusal(settings(path)).startswith(f"{path}: a key of 31 characters; expected at least 32; make one with")
    monkeypatch.setenv(VARIABLE, KEY[:31])
    text = refusal(settings())
    assert text.startswith(f"environment variable {VARIABLE}: a key of 31 characters; expected at least 32")
    with pytest.raises(KeyUnusable, match="the pseudonym key has 31 bytes; expected at least 32"):
        Pseudonyms(KEY[:31].encode())


def test_a_file_that_is_absent_a_folder_or_no_text_is_refused(key_file, tmp_path):
    assert refusal(settings(tmp_path / "absent")).startswith(f"{tmp_path}/absent: No such file or directory; expected")
    assert refusal(settings(tmp_path)).startswith(
        f"{tmp_path}: is no file, but a folder, pipe or device; expected a file"
    )
    path = key_file(KEY.encode() + b"\xff")
    text = refusal(settings(path))
    assert text.startswith(f"{path} is not UTF-8 text; ")
    assert "0xff" not in text


def test_bytes_in_the_environment_that_are_no_text_are_refused(monkeypatch):
    monkeypatch.setitem(os.environb, VARIABLE.encode(), KEY.encode() + b"\xff")
    assert refusal(settings()).startswith(f"environment variable {VARIABLE} is not UTF-8 text; ")


def test_a_refusal_ends_a_job_with_exit_code_2():
    assert issubclass(KeyUnusable, InputError)


def test_the_key_can_be_pickled_but_is_never_shown(key_file, caplog):
    path = key_file(KEY)
    pseudonyms = load_key(settings(path))
    unpickled = pickle.loads(pickle.dumps(pseudonyms))  # noqa: S301
    assert unpickled.pseudonymised(pa.array(["x"])).to_pylist() == [expected("x")]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").info("%s %r %s", pseudonyms, unpickled, [pseudonyms])
        logging.getLogger("test").info("%s", {"pseudonyms": pseudonyms})
    config = Config(score=settings(path))
    for shown in (repr(pseudonyms), str(unpickled), f"{pseudonyms}", caplog.text, config.as_json(), repr(config)):
        assert KEY not in shown
    assert repr(pseudonyms) == f"Pseudonyms(key_id='{pseudonyms.key_id}')"
    assert not hasattr(pseudonyms, "__dict__")
    assert KEY not in pseudonyms.key_id * 4
    assert Path(path).read_text() == KEY  # the file is only read
