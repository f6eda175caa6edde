"""The bench: its meter with known loads, its checks with missing work, and one tiny run; never its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.bench import prep, prep_checks, rounds
from tests.bench.measure import ROOT, CommandFailed, Usage, measured
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
    fork = "import os, time; held = b'x' * 300_000_000; [os.fork() for _ in range(2)]; time.sleep(2)"
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


def case(name: str, scale: float, wall: float, peak: float) -> rounds.Measured:
    one = rounds.Case("prep", name, scale, 1_000, lambda _: Taken(Usage(0, 0, 0)), lambda _: None, 1.0)
    return rounds.Measured(one, [Taken(Usage(seconds, 1.0, peak)) for seconds in (wall, 100 * wall, wall)])


def test_ratios_are_of_medians_and_are_compared_with_their_bars() -> None:
    part = prep.Part.__new__(prep.Part)
    part._plan = rounds.Plan(Path(), Path(), (0,), (1.0, 4.0), ())
    done = [case("ids_spark", 1.0, 20, 900), case("pandas", 1.0, 80, 9_000), case("ids_spark", 4.0, 90, 900)]
    found = {ratio.name: (ratio.value, ratio.result) for ratio in part.ratios(done)}
    assert found == {
        "prep_vs_pandas_wall": (0.25, "met"),
        "prep_vs_pandas_memory": (0.1, "met"),
        "prep_growth_1_to_4": (4.5, "missed"),
    }


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


@pytest.mark.slow
def test_tiny_run_of_every_case(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--part", "prep", "--scales", "0.001", "--rounds", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {"cpu", "cores_used", "memory_gb", "python", "pyspark", "load_average_at_start"} <= found["machine"].keys()
    assert [entry["case"] for entry in found["cases"]] == ["ids_spark", "pandas", "polars", "plain_spark"]
    for entry in found["cases"]:
        assert entry["part"] == "prep"
        assert entry["rows"] == 8_778
        assert all(entry[figure] > 0 for figure in ("wall_s", "cpu_s", "peak_rss_mb", "rows_per_s"))
    assert set(found["ratios"]) == {
        "prep_vs_pandas_wall",
        "prep_vs_pandas_memory",
        "prep_vs_plain_spark_wall",
        "prep_vs_polars_wall",
    }
    left = list(found["settings"]["prep"]["rows_left"].values())
    assert left == [{"train": 7_156, "test": 1_615}] * 4
    assert "prep_vs_pandas_memory" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "logs"]  # no data remain
