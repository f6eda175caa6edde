import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.base.errors import NotReconciled
from ids_spark.lake.parquet import keep_only, open_part, part_name, write_part

CONTRACT = pa.schema([("row_key", pa.int64()), ("Rate", pa.float64()), ("class19", pa.string())])


def table(start, rows):
    numbers = range(start, start + rows)
    return pa.table(
        {"row_key": list(numbers), "Rate": [n / 3 for n in numbers], "class19": ["Benign"] * rows}, schema=CONTRACT
    )


def test_two_attempts_at_one_part_have_two_names():
    names = {part_name(7) for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("part-00007-") and name.endswith(".parquet") for name in names)


@pytest.mark.parametrize("dictionary", [(), ("class19",)])
def test_rows_are_read_as_written_one_row_group_for_each_table(tmp_path, dictionary):
    tables = [table(0, 3), table(3, 0), table(3, 4)]
    rows = write_part(str(tmp_path / "new"), "part-0.parquet", iter(tables), CONTRACT, {"origin": "x"}, dictionary)
    file = pq.ParquetFile(tmp_path / "new" / "part-0.parquet")
    assert rows == 7
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3, 4]
    assert file.read().equals(pa.concat_tables(tables))
    assert file.schema_arrow.metadata[b"origin"] == b"x"


@pytest.mark.parametrize("reader", ["pyarrow", "ours"])
def test_texts_given_as_dictionaries_are_read_as_texts_and_the_file_keeps_its_facts(tmp_path, reader):
    given = table(0, 3).set_column(2, "class19", table(0, 3)["class19"].dictionary_encode())
    write_part(str(tmp_path), "part-0.parquet", [given, given], CONTRACT, {"origin": "x"}, ("class19",), ("row_key",))
    path = tmp_path / "part-0.parquet"
    assert pq.read_metadata(path).metadata[b"origin"] == b"x"
    if reader == "pyarrow":
        schema, rows = pq.read_schema(path), pq.read_table(path)
    else:
        with open_part(str(path)) as file:
            schema, rows = file.schema, file.read(CONTRACT.names)
    assert schema.metadata[b"origin"] == b"x"
    assert schema.types == CONTRACT.types
    assert rows.to_pydict() == pa.concat_tables([table(0, 3), table(0, 3)]).to_pydict()


def test_only_columns_worth_it_have_a_dictionary_and_only_the_key_has_statistics(tmp_path):
    write_part(str(tmp_path), "part-0.parquet", [table(0, 5)], CONTRACT, {}, ("class19",))
    group = pq.ParquetFile(tmp_path / "part-0.parquet").metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    with_dictionary = {name for name, column in columns.items() if "RLE_DICTIONARY" in column.encodings}
    assert with_dictionary == {"class19"}
    assert {name for name, column in columns.items() if column.is_stats_set} == {"row_key"}
    assert (columns["row_key"].statistics.min, columns["row_key"].statistics.max) == (0, 4)


def test_numbers_are_encoded_as_suits_their_values(tmp_path):
    random, rows = np.random.default_rng(1), 4998
    columns = {
        "few": random.choice([0.0, -0.0, 0.1, np.inf, -np.inf], rows),
        "many": random.standard_normal(rows),
        "halved": np.repeat(random.standard_normal(rows // 3), 3),
        "int": random.integers(0, 3, rows),
        "close": [*range(rows - 1), -(2**63)],  # only the first rows tell
        "far": random.integers(-(2**63), 2**63, rows),
        "null": [None, 1.5] * (rows // 2),
    }
    expected = pa.table(columns)
    complete = ("few", "many", "int", "close", "far")
    write_part(str(tmp_path), "a.parquet", [expected, expected.slice(0, 9)], expected.schema, {"x": "y"}, (), complete)
    file = pq.ParquetFile(tmp_path / "a.parquet")
    found = {group.path_in_schema: group for group in map(file.metadata.row_group(0).column, range(7))}
    of_dictionary = {name for name, column in found.items() if "RLE_DICTIONARY" in column.encodings}
    assert of_dictionary == {"few", "int"}
    assert {name for name, column in found.items() if "DELTA_BINARY_PACKED" in column.encodings} == {"close"}
    assert found["close"].total_compressed_size < rows
    plain = {name for name, column in found.items() if column.compression == "UNCOMPRESSED"}
    assert plain == {"few", "int", "many", "close", "far"}
    assert {column.name for column in file.schema_arrow if not column.nullable} == set(complete)
    with open_part(f"{tmp_path}/a.parquet") as part:
        read = part.read(part.schema.names)
        assert part.schema == read.schema
        assert part.schema.equals(expected.schema)
    assert read.slice(0, rows).equals(expected)
    assert np.signbit(read["few"].to_numpy()[:rows]).tolist() == np.signbit(columns["few"]).tolist()
    with pytest.raises(ValueError, match="column\\(s\\) a hold nulls"):
        write_part(
            str(tmp_path), "b.parquet", [pa.table({"a": [1.0, None]})], pa.schema([("a", pa.float64())]), {}, (), "a"
        )


def test_a_part_without_rows_is_a_readable_file(tmp_path):
    assert write_part(str(tmp_path), "part-0.parquet", [], CONTRACT, {}) == 0
    assert pq.read_table(tmp_path / "part-0.parquet").schema.equals(CONTRACT)


def test_a_narrower_type_is_widened_to_the_contract(tmp_path):
    narrow = table(0, 2).set_column(0, "row_key", pa.array([0, 1], pa.int32()))
    write_part(str(tmp_path), "part-0.parquet", [narrow], CONTRACT, {})
    assert pq.read_table(tmp_path / "part-0.parquet").equals(table(0, 2))


def test_files_of_attempts_that_did_not_count_are_removed(tmp_path, caplog):
    names = ["part-00000-a.parquet", "part-00000-b.parquet", "part-00001-c.parquet", "_table.json"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    keep_only(["part-00000-b.parquet", "part-00001-c.parquet"], str(tmp_path), str(tmp_path / "absent"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["_table.json", "part-00000-b.parquet", "part-00001-c.parquet"]
    assert f"file={tmp_path / 'part-00000-a.parquet'}" in caplog.text
    assert not (tmp_path / "absent").exists()


def test_a_reported_file_that_is_gone_stops_the_job(tmp_path):
    (tmp_path / "part-00000-a.parquet").write_bytes(b"x")
    with pytest.raises(NotReconciled, match="lack 1 files of tasks, such as part-00001-b"):
        keep_only(["part-00000-a.parquet", "part-00001-b.parquet"], str(tmp_path))


def test_a_text_may_be_a_dictionary_in_some_tables_of_a_file_and_not_in_others(tmp_path):
    contract, given = pa.schema([("device", pa.string())]), ["pump", None, "pump", "monitor"]
    plain = pa.chunked_array([pa.array(given)])
    encoded = plain.dictionary_encode()
    narrow = pa.chunked_array(
        [pa.DictionaryArray.from_arrays(pa.array([1, 2, 1, 0], pa.int8()), ["monitor", "pump", None])]
    )
    wide = pa.chunked_array([pa.array(given, pa.large_string()).dictionary_encode()])
    nothing = pa.chunked_array([pa.nulls(4, pa.string())])
    forms = [plain, encoded, narrow, wide, nothing]
    for number, first in enumerate(forms):
        columns = [first, *forms]
        tables = [pa.table([column], names=["device"]) for column in columns]
        write_part(str(tmp_path), f"part-{number}.parquet", tables, contract, {"origin": "x"}, ["device"])
        found = pq.read_table(tmp_path / f"part-{number}.parquet")
        assert found.schema.field("device").type == pa.string()
        assert found.schema.metadata[b"origin"] == b"x"
        assert found["device"].to_pylist() == [value for column in columns for value in column.to_pylist()]


def test_a_null_among_the_values_of_a_dictionary_is_a_null(tmp_path):
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["pump", None]))
    given, contract = pa.table([column], names=["device"]), pa.schema([("device", pa.string())])
    with pytest.raises(ValueError, match="column\\(s\\) device hold nulls"):
        write_part(str(tmp_path), "part-0.parquet", [given], contract, {}, complete=["device"])
