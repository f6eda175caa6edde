"""The bench: its meter with known loads, its checks with missing work, and one tiny run; never its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.bench import layouts, prep, prep_checks, report, rounds
from tests.bench.measure import ROOT, CommandFailed, OutOfMemory, Usage, measured
from tests.bench.rounds import Taken

CPUS = sorted(os.sched_getaffinity(0))[:2]
HOLD = "import time; held = b'x' * 300_000_000; time.sleep(1)"
BURN = "import time\nwhile time.process_time() < 1.0: pass"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def in_grandchild(code: str, wait: bool = True) -> list[str]:
    call = "subprocess.run" if wait else "subprocess.Popen"
    return python(f"import subprocess, sys; {call}([sys.executable, '-c', {code!r}])")


def test_meter_measures_the_memory_of_a_grandchild(tmp_path: Path) -> None:
    usage = measured(in_grandchild(HOLD), tmp_path / "log", CPUS)
    assert 300 <= usage.peak_rss_mb <= 360
    assert 1.0 <= usage.wall_s <= 10


def test_meter_counts_pages_that_forks_share_once(tmp_path: Path) -> None:
    fork = "import os, time; held = b'x' * 300_000_000; [os.fork() for _ in range(2)]; time.sleep(4)"
    usage = measured(python(fork), tmp_path / "log", CPUS)
    assert 300 <= usage.peak_rss_mb <= 400  # four processes, 1,200 MB of resident sizes


@pytest.mark.parametrize("wait", [True, False], ids=["waited for", "orphan"])
def test_meter_measures_the_cpu_time_of_a_grandchild(tmp_path: Path, wait: bool) -> None:
    usage = measured(in_grandchild(BURN, wait), tmp_path / "log", CPUS)
    assert 1.0 <= usage.cpu_s <= 2.0


def test_meter_measures_the_cpu_time_of_children_without_a_waiting_parent(tmp_path: Path) -> None:
    daemon = (
        "import signal, subprocess, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        f" subprocess.Popen([sys.executable, '-c', {BURN!r}]).wait()"
    )
    usage = measured(python(daemon), tmp_path / "log", CPUS)
    assert 0.8 <= usage.cpu_s <= 2.0


def test_meter_binds_the_process_tree_to_the_given_cpus(tmp_path: Path) -> None:
    measured(in_grandchild("import os; print(os.sched_getaffinity(0))"), tmp_path / "log", CPUS[:1])
    assert (tmp_path / "log").read_text().strip() == str({CPUS[0]})


def test_failing_command_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"ended with exit code 3; the end of .*log:\nno such flow$"):
        measured(python("import sys; print('no such flow'); sys.exit(3)"), tmp_path / "log", CPUS)


def test_two_commands_add_times_and_keep_the_larger_peak() -> None:
    assert Usage(1.0, 2.0, 300.0).then(Usage(0.5, 1.0, 200.0)) == Usage(1.5, 3.0, 300.0)


def test_a_program_that_needs_more_memory_than_it_may_hold_is_told_from_one_that_fails(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match="MemoryError") as ended:
        measured(python("x = bytearray(400_000_000)"), tmp_path / "log", CPUS, memory=300_000_000)
    assert ended.value.usage.exit_code == 1
    assert measured(python("x = bytearray(100_000_000)"), tmp_path / "log", CPUS, memory=300_000_000).exit_code == 0
    with pytest.raises(CommandFailed) as failed:
        measured(python("raise SystemExit(3)"), tmp_path / "other", CPUS, memory=300_000_000)
    assert not isinstance(failed.value, OutOfMemory)


def case(name: str, scale: float, wall: float, peak: float, cpu: float = 1.0, failed: str = "") -> rounds.Measured:
    one = rounds.Case("prep", name, scale, 1_000, lambda _: Taken(Usage(0, 0, 0)), lambda _: None, 1.0, f"by {name}")
    runs = [Taken(Usage(seconds, cpu, peak), {}, failed) for seconds in (wall, 100 * wall, wall)]
    return rounds.Measured(one, runs)


PREP = [
    case("ids_spark", 1.0, 20, 900, 30),
    case("pandas", 1.0, 80, 9_000),
    case("polars", 1.0, 10, 9_000, 18),
    case("ids_spark", 0.5, 14, 900, 20),
    case("polars", 0.5, 6, 5_000, 10),
    case("ids_spark", 4.0, 90, 900),
    case("polars", 4.0, 0, 0, failed="out of memory at scale 2"),
]


def ratios(cases: list[rounds.Measured]) -> list[rounds.Ratio]:
    part = prep.Part.__new__(prep.Part)
    part._plan, part._second = rounds.Plan(Path(), Path(), Path(), (0,), (1.0, 2.0, 4.0), ()), 0.5
    return part.ratios(cases)


def test_ratios_are_of_medians_and_are_compared_with_their_bars() -> None:
    found = {ratio.name: (ratio.value, ratio.result) for ratio in ratios(PREP)}
    assert found == {
        "prep_vs_polars_wall": (2.0, "missed"),
        "prep_vs_pandas_wall": (0.25, "met"),
        "prep_vs_pandas_memory": (0.1, "met"),
        "prep_marginal_cpu_vs_polars": (1.25, "met"),
        "prep_marginal_wall_vs_polars": (1.5, "met"),
        "prep_memory_mb": (900, "met"),
        "prep_growth_1_to_4": (4.5, "missed"),
    }


def test_every_ratio_is_in_json_with_value_bar_and_result(tmp_path: Path) -> None:
    found = report.content({}, {"rounds": 3}, PREP, ratios(PREP))
    report.write_json(tmp_path / "bench.json", found)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["ratios"]["prep_growth_1_to_4"] == {"value": 4.5, "at_most": 4.4, "result": "missed"}
    assert written["cases"][-1]["failed"] == "out of memory at scale 2"
    assert "quick" not in written
    quick = report.content({}, {"rounds": 1}, PREP, ratios(PREP), quick=True)
    assert quick["quick"] == report.QUICK
    assert quick["ratios"]["prep_growth_1_to_4"] == {"value": 4.5, "at_most": 4.4, "result": "quick"}


def test_markdown_has_the_figures_of_both_runs(tmp_path: Path) -> None:
    machine = {"cores_used": 2, "cores": 4, "cpu": "a CPU", "memory_gb": 25.3}
    before = report.content(machine, {"rounds": 3}, [case("ids_spark", 1.0, 34, 1_800, 57)], [])
    before["ratios"] = {"prep_vs_pandas_wall": 0.57}  # as earlier versions wrote it
    report.write_markdown(tmp_path / "bench.md", report.content(machine, {"rounds": 3}, PREP, ratios(PREP)), before)
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert lines[0] == "2 of 4 cores, a CPU, 25.3 GB; synthetic data; medians of 3 rounds."
    assert "| by ids_spark | 1 | 1,000 | 34.0 | 20.0 | 57.0 | 30.0 | 1.80 GB | 0.90 GB | 50 |" in lines
    assert "| by pandas | 1 | 1,000 |  | 80.0 |  | 1.0 |  | 9.00 GB | 12 |" in lines
    assert "| by polars | 4 | 1,000 |  | out of memory at scale 2 |  |  |  |  |  |" in lines
    assert "| `prep_vs_pandas_wall` | 0.57 | 0.25 | at most 0.35 | met |" in lines
    report.write_markdown(tmp_path / "bench.md", report.content(machine, {"rounds": 3}, PREP, ratios(PREP)))
    text = (tmp_path / "bench.md").read_text()
    assert "| by ids_spark | 1 | 1,000 | 20.0 | 30.0 | 0.90 GB | 50 |" in text
    assert "\n### prep\n" in text


def test_markdown_has_the_figures_that_cases_state(tmp_path: Path) -> None:
    one = case("2ranks-8192", 1.0, 34, 1_800)
    for run in one.runs:
        run.stated["gru_dnn_rows_per_s"] = 407_000.0
    found = report.content({"cores_used": 2, "cores": 2, "cpu": "a CPU", "memory_gb": 25}, {"rounds": 3}, [one], [])
    old = json.loads(json.dumps(found))
    old["cases"][0]["gru_dnn_rows_per_s"] = 316_000.0
    report.write_markdown(tmp_path / "bench.md", found, old)
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert "| by 2ranks-8192 | 1 | gru dnn rows per s | 316,000 | 407,000 |" in lines
    assert "| by 2ranks-8192 | 1 | 1,000 | 34.0 | 34.0 | 1.0 | 1.0 | 1.80 GB | 1.80 GB |  |" in lines


def test_cases_take_turns_and_are_checked_once(tmp_path: Path) -> None:
    seen: list[str] = []

    def named(name: str) -> rounds.Case:
        def run(target: Path) -> Taken:
            assert list(target.iterdir()) == []
            (target / "table").touch()
            seen.append(name)
            return Taken(Usage(1.0, 1.0, 1.0))

        return rounds.Case("prep", name, 1.0, 10, run, lambda target: seen.append(f"{name} checked"), 1.0)

    lines: list[str] = []
    *_, last = rounds.run([named("a"), named("b")], 2, tmp_path, lines.append)
    assert seen == ["a", "a checked", "b", "b checked", "a", "b"]
    assert [len(one.runs) for one in last] == [2, 2]
    assert lines[-1] == "prep round 2/2 b scale 1: 1.0 s, 1.0 s CPU, 1 MB; about 0 min left"


def test_cases_for_information_run_in_the_first_round_alone_and_failed_ones_are_not_checked(tmp_path: Path) -> None:
    def unchecked(_: Path) -> None:
        raise AssertionError("there is nothing to check")

    def named(name: str, failed: str = "", once: bool = False) -> rounds.Case:
        taken = Taken(Usage(60.0, 1.0, 1.0), failed=failed)
        check = unchecked if failed else lambda _: None
        return rounds.Case("prep", name, 1.0, 10, lambda _: taken, check, 1.0, once=once)

    lines: list[str] = []
    *_, last = rounds.run([named("a"), named("b", "out of memory", once=True)], 3, tmp_path, lines.append)
    assert [len(one.runs) for one in last] == [3, 1]
    assert last[1].failed == "out of memory"
    assert lines[1] == "prep round 1/3 b scale 1: out of memory after 60.0 s, 1.0 s CPU, 1 MB; about 2 min left"


def write_work(folder: Path, rows: int, scaled: bool = True, shuffled: bool = True) -> None:
    """Write the tables of a case for a source of `rows` distinct rows in each split."""
    rng = np.random.default_rng(3)
    (folder / "_SYNTHETIC.json").write_text(
        json.dumps({"rows": {"train": rows, "test": rows}, "duplicates": {"train": 0, "test": 0}})
    )
    held_out = rows // 5
    for split, n in {"train": rows - held_out, "validation": held_out, "test": rows}.items():
        values = rng.normal(size=n) * (1.0 if scaled else 3.0)
        values = (values - values.mean()) / (values.std() if scaled else 1.0)
        labels = rng.integers(0, 4, n) if shuffled else np.sort(rng.integers(0, 4, n))
        table = folder / "features" / f"split={split}"
        table.mkdir(parents=True)
        pd.DataFrame({"Rate": values.astype(np.float32), "label19": labels}).to_parquet(table / "part-0.parquet")
    for split in ("train", "test"):
        table = folder / "flows" / f"split={split}"
        table.mkdir(parents=True)
        pd.DataFrame({"Rate": np.zeros(rows)}).to_parquet(table / "part-0.parquet")


def test_correct_work_passes(tmp_path: Path) -> None:
    write_work(tmp_path, 2_000)
    found = prep_checks.outcome("polars", tmp_path, tmp_path, None, {"Rate": 2.0})
    assert found.rows_left == {"train": 2_000, "test": 2_000}
    prep_checks.compare("polars", found, "pandas", found)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"scaled": False}, r"polars: scaled Rate has mean .* and deviation [23]\.\d+; expected 0 and 1"),
        ({"shuffled": False}, r"polars: \d+\.\d% of neighbours in split=train share a class, 25\.\d% by chance"),
    ],
)
def test_work_not_done_is_found(tmp_path: Path, fault: dict[str, bool], message: str) -> None:
    write_work(tmp_path, 2_000, **fault)
    with pytest.raises(prep_checks.WorkDiffers, match=message):
        prep_checks.outcome("polars", tmp_path, tmp_path, None, {"Rate": 2.0})


def test_missing_and_duplicate_rows_are_found(tmp_path: Path) -> None:
    write_work(tmp_path, 2_000)
    facts = {"rows": {"train": 2_000, "test": 2_000}, "duplicates": {"train": 1, "test": 0}}
    (tmp_path / "_SYNTHETIC.json").write_text(json.dumps(facts))
    with pytest.raises(prep_checks.WorkDiffers, match="2000 rows of train left, expected 1999 less 0 refused"):
        prep_checks.outcome("polars", tmp_path, tmp_path, None, {"Rate": 2.0})


def test_deviations_of_other_data_are_found() -> None:
    rows = {"train": 2_000_000, "test": 1}
    one, other = prep_checks.Outcome(rows, {"Rate": 2.0}), prep_checks.Outcome(rows, {"Rate": 2.1})
    with pytest.raises(
        prep_checks.WorkDiffers, match=r"deviations of polars and pandas differ by 4\.76%, expected at most"
    ):
        prep_checks.compare("polars", one, "pandas", other)
    with pytest.raises(prep_checks.WorkDiffers, match=r"polars and pandas kept other features: \['IAT', 'Rate'\]"):
        prep_checks.compare("polars", one, "pandas", prep_checks.Outcome(rows, {"IAT": 2.0}))


def write_dataset(folder: Path, ending: str) -> pd.DataFrame:
    """Write a tiny data set in the layout of the synthetic ones; return its train rows with their labels."""
    rng = np.random.default_rng(5)
    facts: dict[str, Any] = {"rows": {"train": 0, "test": 0}, "duplicates": {"train": 0, "test": 0}}
    facts["rows_per_file"] = {}
    train = []
    for split in ("train", "test"):
        for name, rows in (("Benign", 70), ("TCP_IP-DDoS-UDP1", 50), ("TCP_IP-DDoS-UDP2", 30)):
            frame = pd.DataFrame({"Rate": rng.normal(size=rows).round(6), "IAT": np.arange(rows) + 0.5})
            path = f"{split}/{name}_{split}.pcap.{ending}"
            (folder / split).mkdir(parents=True, exist_ok=True)
            if ending == "csv":
                frame.to_csv(folder / path, index=False)
            else:
                frame.to_parquet(folder / path, index=False, row_group_size=40)
            facts["rows_per_file"][path] = rows
            facts["rows"][split] += rows
            train += [frame.assign(label=f"{name}_{split}")] if split == "train" else []
    (folder / "_SYNTHETIC.json").write_text(json.dumps(facts))
    return pd.concat(train, ignore_index=True)


def test_one_file_holds_the_rows_of_many_in_their_order(tmp_path: Path) -> None:
    expected = write_dataset(tmp_path / "csv", "csv")
    assert layouts.one_csv(tmp_path / "csv" / "train", tmp_path / "one.csv") == 150
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "one.csv"), expected)
    layouts.gzipped(tmp_path / "one.csv", tmp_path / "one.csv.gz")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "one.csv.gz"), expected)
    expected = write_dataset(tmp_path / "parquet", "parquet")
    assert layouts.one_parquet(tmp_path / "parquet" / "train", tmp_path / "one.parquet") == 150
    found = pd.read_parquet(tmp_path / "one.parquet").astype({"label": str})
    pd.testing.assert_frame_equal(found, expected)
    assert pq.ParquetFile(tmp_path / "one.parquet").num_row_groups == 1


@pytest.mark.parametrize("class19", [None, "DDoS-UDP"])
def test_copies_are_as_many_as_stated_between_the_rows_of_the_source(tmp_path: Path, class19: str | None) -> None:
    write_dataset(tmp_path / "source", "parquet")
    copies = layouts.with_copies(tmp_path / "source", tmp_path / "target", 600, class19)
    rate = copies.vector["Rate"][0].as_py()
    facts = json.loads((tmp_path / "target" / "_SYNTHETIC.json").read_text())
    counts: dict[tuple[str, str], int] = {}
    for path, rows in facts["rows_per_file"].items():
        frame = pd.read_parquet(tmp_path / "target" / path)
        assert len(frame) == rows
        copied = frame["Rate"] == rate
        rest = frame[~copied].reset_index(drop=True)
        pd.testing.assert_frame_equal(rest, pd.read_parquet(tmp_path / "source" / path))
        key = path.partition("/")[0], "Benign" if "Benign" in path else "DDoS-UDP"
        counts[key] = counts.get(key, 0) + int(copied.sum())
        assert len(frame[copied].drop_duplicates()) <= 1
    assert sum(counts.values()) == 600
    assert dict(copies.counts) == {key: n for key, n in counts.items() if n}
    labels = 1 if class19 else 2
    assert facts["duplicates"] == {
        split: sum(n for (name, _), n in counts.items() if name == split) - labels for split in ("train", "test")
    }
    assert sum(facts["rows"].values()) == 900


def tiny(out: Path, part: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run a part of the bench; return its figures and what it printed."""
    command = [sys.executable, "-m", "tests.bench", "--part", part, "--rounds", "1", *arguments, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "bench.md", "logs"]  # no data remain
    return json.loads((out / "bench.json").read_text()), done.stdout


@pytest.mark.slow
def test_tiny_run_of_prep(tmp_path: Path) -> None:
    found, said = tiny(tmp_path, "prep", "--scales", "0.001", "0.002")
    assert {"cpu", "cores_used", "memory_gb", "python", "pyspark", "load_average_at_start"} <= found["machine"].keys()
    cases = [(entry["case"], entry["scale"], entry["rows"]) for entry in found["cases"]]
    assert cases == [
        *((name, 0.001, 8_778) for name in ("ids_spark", "pandas", "polars")),
        *((name, 0.002, 17_546) for name in ("ids_spark", "polars")),
    ]
    for entry in found["cases"]:
        assert entry["part"] == "prep"
        assert all(entry[figure] > 0 for figure in ("wall_s", "cpu_s", "peak_rss_mb", "rows_per_s"))
    assert set(found["ratios"]) == {
        "prep_vs_pandas_wall",
        "prep_vs_pandas_memory",
        "prep_vs_polars_wall",
        "prep_marginal_cpu_vs_polars",
        "prep_marginal_wall_vs_polars",
        "prep_memory_mb",
    }
    left = found["settings"]["prep"]["rows_left"]
    assert [left[f"{name} scale 0.001"] for name in ("ids_spark", "pandas", "polars")] == [
        {"train": 7_156, "test": 1_615}
    ] * 3
    assert "prep_vs_pandas_memory" in said


@pytest.mark.slow
def test_tiny_run_of_files(tmp_path: Path) -> None:
    found, _ = tiny(tmp_path, "files", "--scales", "0.001")
    assert [entry["case"] for entry in found["cases"]] == [
        *("csv_many", "csv_one", "csv_one_gzip", "parquet_many", "parquet_one")
    ]
    assert {entry["rows"] for entry in found["cases"]} == {7_161}
    assert found["ratios"]["files_one_csv_vs_many"]["at_most"] == 1.3
    assert found["ratios"]["files_csv_one_memory_mb"]["result"] == "met"


@pytest.mark.slow
def test_tiny_run_of_skew(tmp_path: Path) -> None:
    found, _ = tiny(tmp_path, "skew", "--scales", "0.001")
    assert [entry["case"] for entry in found["cases"]] == ["even", "third", "copies"]
    assert [entry["rows"] for entry in found["cases"]] == pytest.approx([12_000] * 3, abs=10)
    assert found["settings"]["skew"]["copies"] == {"third": 3_600, "copies": 10_000}
    assert {"skew_third_vs_even", "skew_copies_vs_even", "skew_copies_memory_mb"} <= set(found["ratios"])


@pytest.mark.slow
def test_tiny_run_of_score(tmp_path: Path) -> None:
    found, _ = tiny(tmp_path, "score", "--quick", "--scales", "0.004", "0.004", "0.01")
    assert [entry["case"] for entry in found["cases"]] == ["ids_spark", "scan", "pandas", "small_night"]
    assert found["cases"][-1]["rows"] > 2_000
    assert found["quick"] == report.QUICK
    assert found["ratios"]["small_night_s"]["at_most"] == 8.0
    assert set(found["ratios"]) == {"score_vs_scan", "score_vs_pandas", "small_night_s"}
