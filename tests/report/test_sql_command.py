"""`make sql`: its questions, formats and exit codes."""

import csv
import datetime as dt
import io
import json
import sys

import pyarrow as pa
import pytest

from ids_spark.alerts.pseudonyms import Pseudonyms
from ids_spark.lake.store import Lake
from ids_spark.report import sql_command
from tests.support.incident_rows import NIGHT, alert
from tests.support.nights import KEY
from tests.support.stored_night import store_night

DAY = dt.timedelta(days=1)


@pytest.fixture
def ask(tmp_path, capsys, caplog):
    """Ask a lake in which a pump has the escape sequence of a terminal in its name, and one a pseudonym."""
    lake = Lake(str(tmp_path / "a lake"))
    store_night(lake, [alert("scan", "pump\x1b[2J"), alert("scan", Pseudonyms(KEY.encode()).of("pump-2"))], NIGHT)
    store_night(lake, [alert("flood", "pump-1", "DDoS")], NIGHT + DAY)

    def run(*arguments):
        caplog.clear()
        code = sql_command.main(["--set", f"lake='{lake.root}'", *arguments])
        return code, capsys.readouterr().out or caplog.text

    return run


def test_a_query_is_answered_as_table_csv_and_json(ask):
    query = "select incident_id, sources, flows / 0.0 as x, null as y from incidents order by 1"
    code, table = ask("--query", query)
    assert code == 0
    assert "incident_id" in table
    assert "2 rows" in table
    code, text = ask("--query", query, "--format", "csv")
    first = next(csv.DictReader(io.StringIO(text)))
    assert first == {"incident_id": "flood", "sources": "[]", "x": "", "y": ""}
    code, text = ask("--query", query, "--format", "json")
    assert [json.loads(line) for line in text.splitlines()][1] == {
        "incident_id": "scan",
        "sources": [],
        "x": None,
        "y": None,
    }


def test_no_digit_before_the_point_is_cut_and_csv_has_all_of_them(ask):
    query = "select 12345678.5::double as large, 1 / 3::double as third"
    _, text = ask("--query", query, "--format", "csv")
    assert text.splitlines()[1] == "12345678.5,0.3333333333333333"
    _, table = ask("--query", query)
    assert table.splitlines()[-2].split() == ["12345678.5", "│", "0.333333"]


def test_a_view_is_asked_by_device_and_date(ask, monkeypatch):
    json_of = ("--format", "json")
    code, text = ask("--view", "device_history", "--device", "pump-1", *json_of)
    assert (code, [json.loads(line)["incident_id"] for line in text.splitlines()]) == (0, ["flood"])
    code, text = ask("--view", "alerts", "--date", str(NIGHT), *json_of)
    assert (code, len(text.splitlines())) == (0, 2)
    code, text = ask("--view", "incidents_of_week", "--date", str(NIGHT + DAY), *json_of)
    assert {json.loads(line)["week"] for line in text.splitlines()} == {str(NIGHT - NIGHT.weekday() * DAY)}
    monkeypatch.setenv("IDS_SPARK_PSEUDONYM_KEY", KEY)
    code, text = ask("--view", "device_history", "--device", "pump-2", *json_of)
    assert json.loads(text)["incident_id"] == "scan"


def test_names_cannot_move_the_cursor(ask):
    _, text = ask("--query", "select entity from alerts")
    assert "\\x1b[2J" in text
    assert "\x1b" not in text
    _, text = ask("--query", "select entity from alerts", "--format", "csv")
    assert "pump\x1b[2J" in text  # no terminal: as it is stored
    terminal = type("Terminal", (io.StringIO,), {"isatty": lambda self: True})()
    sql_command._write(pa.table({"a\x1b[2J": ["pump\x1b[2J"]}), "csv", terminal)
    assert terminal.getvalue() == "a\\x1b[2J\npump\\x1b[2J\n"


def test_no_value_of_a_table_is_cut(ask, monkeypatch):
    query = "select date '2026-03-01' as night, repeat('ab', 60) as id, [1, 2] as numbers"
    monkeypatch.delenv("COLUMNS", raising=False)
    _, wide = ask("--query", query)
    assert f"2026-03-01 │ {'ab' * 60} │ [1, 2]" in wide
    monkeypatch.setenv("COLUMNS", "80")
    _, narrow = ask("--query", query)
    assert narrow.splitlines() == [
        "row 1", "  night    2026-03-01", f"  id       {'ab' * 60}", "  numbers  [1, 2]", "1 row"
    ]  # fmt: skip


def test_an_unknown_device_or_date_is_answered_with_a_hint(ask, caplog):
    code, text = ask("--view", "device_history", "--device", "pump-99")
    assert (code, text.splitlines()[-1]) == (0, "0 rows")
    assert "device_history has no row of device pump-99; names are as they are stored" in caplog.text
    ask("--view", "alerts", "--date", "2020-01-01", "--format", "csv")
    assert "alerts has no row of date 2020-01-01; a date that nights_overview does not list" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--query", "from nope"], "views: device_history"),
        (["--query", "select * from incident"], "there is no table or view 'incident'; did you mean 'incidents'?"),
        (["--query", "incidents please"], "this is not an SQL statement"),
        (["--query", "from test_all_types()"], "cast its column to text"),
        (["--query", "from test_all_types()", "--format", "csv"], "cast its column to text"),
        (["--query", "pivot nights on model using count(*)"], "expected them: PIVOT … ON COLUMN IN"),
        (["--view", "nope"], "expected a view: device_history"),
        (["--view", "nights", "--query", "from nights"], "expected one of them"),
        (["--query", "from nights", "--device", "x"], "without --view"),
        (["--view", "alerts", "--date", "yesterday"], "expected YYYY-MM-DD"),
        (["--view", "metrics", "--device", "pump-1"], "metrics has no column of devices"),
        (["--set", "lake=nowhere", "--query", "from nights"], "holds no table; expected a lake"),
        (["--set", "lakes=x", "--query", "from nights"], "lakes"),
    ],
)
def test_a_refusal_is_exit_code_2_and_one_message(ask, arguments, message):
    code, text = ask(*arguments)
    assert code == 2
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"select 'm\xc3\xbc' as x", 0, "mü"),
        (b"select '\xff'", 2, "standard input: byte 8 is no UTF-8; expected one query"),
        (b" " * ((1 << 20) + 1), 2, "standard input: found more than 1,048,576 bytes; expected one query"),
    ],
    ids=["a query", "bytes", "too long"],
)
def test_standard_input_holds_one_query(ask, monkeypatch, content, code, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    found, text = ask()
    assert (found, message in text) == (code, True), text


def test_a_prompt_goes_on_after_a_refusal(ask, monkeypatch):
    lines = iter(["tables", "from nope;", "select count(*)", "from alerts;", "quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    code, text = ask()
    assert code == 0
    assert "view device_history: One row for each incident of each device" in text
    assert "3" in text.splitlines()[-2]
