import datetime as dt
from pathlib import Path

import pytest

from ids_spark.alerts import verdict_lines
from ids_spark.alerts.verdict_lines import Line, VerdictsRefused
from ids_spark.config.loader import ConfigError, load
from ids_spark.config.score import VerdictConfig

TODAY = dt.date(2026, 11, 25)
NIGHT = dt.date(2026, 11, 24)
HEADER = "date,incident_id,verdict,until,owner,reason"
SETTINGS = {"date": NIGHT, "incidents": ["a1b2c3"], "verdict": "true", "owner": "Ada", "reason": "scan"}


def written(tmp_path: Path, content: str | bytes) -> VerdictConfig:
    file = tmp_path / "verdicts.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return VerdictConfig(file=str(file))


def lines_of(tmp_path: Path, *lines: str, header: str = HEADER) -> list[Line]:
    found, faults = verdict_lines.read(written(tmp_path, "\n".join([header, *lines])), TODAY)
    assert faults == []
    return found


def faults_of(tmp_path: Path, *lines: str) -> list[str]:
    found, faults = verdict_lines.read(written(tmp_path, "\n".join([HEADER, *lines])), TODAY)
    assert found == []
    return faults


class TestFile:
    def test_lines(self, tmp_path):
        mute, true = lines_of(
            tmp_path,
            '2026-11-24,a1b2c3d4,mute,2026-12-24,"Nurse, A.","night ""backup"""',
            "2026-11-23,ffffff,TRUE,,Ada,scan",
        )
        assert mute[1:] == (NIGHT, "a1b2c3d4", "mute", dt.date(2026, 12, 24), "Nurse, A.", 'night "backup"')
        assert true[1:] == (dt.date(2026, 11, 23), "ffffff", "true", None, "Ada", "scan")
        assert true.where.endswith("verdicts.csv line 3")

    @pytest.mark.parametrize(
        "content",
        [
            "\ufeff" + f"{HEADER}\r\n2026-11-24,a1b2c3,close,,Ada,scan\r\n\r\n",
            f"{HEADER}\n\n , ,,,,\n 2026-11-24 , A1B2C3 , close , , Ada ,  scan\n",
            "reason,Owner,verdict, DATE ,incident_id\nscan,Ada,close,2026-11-24,a1b2c3\n",
            f'{HEADER}\n"2026-11-24","a1b2c3","close","","Ada","scan"',
        ],
    )
    def test_forms_of_one_line(self, tmp_path, content):
        [line], faults = verdict_lines.read(written(tmp_path, content), TODAY)
        assert line[1:] == (NIGHT, "a1b2c3", "close", None, "Ada", "scan")
        assert faults == []

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            ("", "is empty"),
            (HEADER, "no line below its header"),
            (HEADER.replace(",", ";") + "\n1;2;3;4;5;6", "not separated by commas"),
            (HEADER.replace(",", "\t"), "not separated by commas"),
            ("date,incident_id,verdict\n", "lacks 'owner', 'reason'"),
            (f"{HEADER},until,note\n", "has twice 'until'; has also 'note'"),
            (f'{HEADER}\n"2026-11-24"x,', "not CSV"),
            (f"{HEADER}\n2026-11-24,a1b2c3,close,,Zoë,scan".encode("latin-1"), "is no UTF-8"),
            (HEADER.encode("utf-16"), "is no UTF-8"),
            (HEADER.encode("utf-16-le"), "no text"),
        ],
    )
    def test_other_content_is_refused_in_one_sentence(self, tmp_path, content, found):
        with pytest.raises(VerdictsRefused, match=found) as refused:
            verdict_lines.read(written(tmp_path, content), TODAY)
        assert "\n" not in str(refused.value)
        assert HEADER.replace(",", ", ") in str(refused.value) or "header" in found

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(VerdictsRefused, match="expected CSV"):
            verdict_lines.read(VerdictConfig(file=str(tmp_path / "none.csv")), TODAY)


class TestFaults:
    def test_every_fault_of_every_line_is_listed(self, tmp_path):
        faults = faults_of(
            tmp_path,
            "24.11.2026,a1b2,muted,,,",
            "2026-11-24,a1b2c3,mute,,Ada,scan",
            "2026-11-24,a1b2c3,true,,Ada,one, two",
        )
        assert [fault.split(" line ")[1][0] for fault in faults] == ["2"] * 5 + ["3", "4"]
        for part, fault in zip(
            ("date is '24.11.2026'", "id is 'a1b2'", "'muted'", "owner", "reason", "until is ''", "7 cells"),
            faults,
            strict=True,
        ):
            assert part in fault

    @pytest.mark.parametrize(
        ("until", "found"),
        [
            ("2026-11-23", "before the night"),
            ("2027-11-27", "more than 366 days"),
            ("soon", "expected a date"),
            ("20261201", "expected a date"),
            ("9999-99-99", "expected a date"),
        ],
    )
    def test_the_end_of_a_mute(self, tmp_path, until, found):
        [fault] = faults_of(tmp_path, f"2026-11-24,a1b2c3,mute,{until},Ada,scan")
        assert found in fault

    @pytest.mark.parametrize("until", ["2026-11-24", "2027-11-26"])
    def test_the_first_and_the_last_end_of_a_mute(self, tmp_path, until):
        [line] = lines_of(tmp_path, f"2026-11-24,a1b2c3,mute,{until},Ada,scan")
        assert str(line.until) == until

    def test_only_a_mute_ends(self, tmp_path):
        [fault] = faults_of(tmp_path, "2026-11-24,a1b2c3,benign,2026-12-24,Ada,scan")
        assert "only a mute" in fault

    @pytest.mark.parametrize("text", ['"a\nb"', "a\x1b[31m", "a\u202eb", "\x00"[:0] + "a\x07"])
    def test_control_characters_are_refused(self, tmp_path, text):
        [fault] = faults_of(tmp_path, f"2026-11-24,a1b2c3,close,,Ada,{text}")
        assert "control character" in fault
        assert fault.isprintable()

    def test_texts_of_all_scripts_are_kept(self, tmp_path):
        text = "می‌خواهم  夜間バックアップ\u00a0é <b>"
        [line] = lines_of(tmp_path, f"2026-11-24,a1b2c3,close,,Ada,{text}")
        assert line.reason == "می‌خواهم 夜間バックアップ é <b>"

    @pytest.mark.parametrize(("owner", "reason"), [("a" * 101, "b"), ("a", "b" * 501)])
    def test_long_texts_are_refused(self, tmp_path, owner, reason):
        [fault] = faults_of(tmp_path, f"2026-11-24,a1b2c3,close,,{owner},{reason}")
        assert "expected at most" in fault

    def test_of_many_faults_the_first_are_shown(self):
        with pytest.raises(VerdictsRefused) as refused:
            verdict_lines.refuse([f"fault {i}" for i in range(50)])
        assert "50 fault(s)" in str(refused.value)
        assert str(refused.value).count("\n") == 21
        verdict_lines.refuse([])


class TestSettings:
    def test_one_verdict_on_several_incidents(self):
        config = VerdictConfig(**{**SETTINGS, "incidents": ["a1b2c3", "d4e5f6"]})
        lines, faults = verdict_lines.read(config, TODAY)
        assert [line.incident for line in lines] == ["a1b2c3", "d4e5f6"]
        assert faults == []

    def test_without_any_what_is_expected(self):
        with pytest.raises(VerdictsRefused, match=r"verdict\.date.*verdict\.owner.*or verdict\.file"):
            verdict_lines.read(VerdictConfig(), TODAY)

    def test_equal_faults_are_one(self):
        config = VerdictConfig(**{**SETTINGS, "incidents": ["a1b2c3", "d4e5f6"], "verdict": "mute"})
        assert len(verdict_lines.read(config, TODAY)[1]) == 1

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("verdict.verdict=true", ("verdict", "true")),
            ("verdict.incidents=a1b2c3 d4e5f6", ("incidents", ("a1b2c3", "d4e5f6"))),
            ("verdict.incidents=[a1b2c3, d4e5f6]", ("incidents", ("a1b2c3", "d4e5f6"))),
            ("verdict.incidents='012345'", ("incidents", ("012345",))),
            ("verdict.date=2026-11-24", ("date", NIGHT)),
        ],
    )
    def test_on_the_command_line(self, setting, value):
        assert getattr(load([], [setting]).verdict, value[0]) == value[1]

    @pytest.mark.parametrize(
        ("settings", "found"),
        [
            (["verdict.incidents=012345"], "must be in quotes"),
            (["verdict.incidents=[a1b2c3, 123456]"], "must be in quotes"),
            (["verdict.verdict=false"], "verdict"),
            (["verdict.file=a.csv", "verdict.owner=Ada"], "remove verdict.owner"),
        ],
    )
    def test_faults_of_the_command_line(self, settings, found):
        with pytest.raises(ConfigError, match=found):
            load([], settings)


class TestIncidents:
    IDS = ("a1b2c3d4", "a1b2c3ff", "b1b2c3d4")

    def found(self, *incidents, date=NIGHT):
        lines = [Line(f"line {i}", date, each, "close", None, "Ada", "scan") for i, each in enumerate(incidents, 2)]
        return verdict_lines.find_incidents(lines, {NIGHT: self.IDS, TODAY: ()})

    def test_ids_and_their_first_characters(self):
        found, faults = self.found("a1b2c3d", "b1b2c3d4")
        assert [incident for _, incident in found] == ["a1b2c3d4", "b1b2c3d4"]
        assert faults == []

    @pytest.mark.parametrize(
        ("incidents", "fault"),
        [
            (("a1b2c3",), "2 incidents"),
            (("a1b2c3d4e",), "no incident"),
            (("zzzzzz",), "no incident"),
            (("b1b2c3", "b1b2c3d4"), "already, in line 2"),
        ],
    )
    def test_faults(self, incidents, fault):
        assert fault in self.found(*incidents)[1][0]

    def test_a_night_without_incidents(self):
        [fault] = self.found("a1b2c3", date=TODAY)[1]
        assert f"{TODAY} has no incidents" in fault
