"""The training part of the bench: figures from the statements of cases, refusals, and one tiny run."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import report, rounds, train, train_figures
from tests.bench.__main__ import chosen_cases
from tests.bench.measure import ROOT, Usage
from tests.bench.train_figures import Statement, TrainingDiffers

HISTORY = [
    {"train_seconds": 5.0, "validation_loss": 0.9},
    {"train_seconds": 2.0, "validation_loss": 0.5},
    {"train_seconds": 3.0, "validation_loss": 0.6},
    {"train_seconds": 2.0, "validation_loss": 0.4},
]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.bench", *arguments]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def case(name: str, **stated: float) -> rounds.Measured:
    one = rounds.Case("train", name, 1.0, 1_000, lambda _: rounds.Taken(Usage(0, 0, 0)), lambda _: None, 1.0)
    usage = Usage(10.0, 1.0, 7_000.0)
    return rounds.Measured(one, [rounds.Taken(usage, {k: times * v for k, v in stated.items()}) for times in (1, 9, 1)])


def test_rate_is_that_of_the_median_epoch_after_the_first() -> None:
    stated = Statement(1, steps_per_epoch=10, batch_size=64, losses=[2.0, 1.0], seconds=[9.0, 1.0, 4.0, 2.0])
    assert stated.rows_per_s == 320.0
    assert Statement(1, 10, 64, [2.0], [4.0]).rows_per_s == 160.0


@pytest.mark.parametrize(
    ("target", "expected"), [(0.95, (5.0, 1)), (0.5, (7.0, 2)), (0.41, (12.0, 4)), (0.3, (math.inf, math.inf))]
)
def test_time_to_a_loss_counts_whole_epochs_and_the_first(target: float, expected: tuple[float, float]) -> None:
    assert train_figures.seconds_to_loss(HISTORY, target) == expected


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Statement(4, 10, 64, [2.0, 1.0], [1.0]), "parameters of a: 3, but 4 of b"),
        (Statement(3, 9, 64, [2.0, 1.0], [1.0]), "steps_per_epoch of a: 10, but 9 of b"),
        (Statement(3, 10, 64, [1.0, 1.0], [1.0]), r"b did not learn: training losses \[1\.0, 1\.0\]"),
        (Statement(3, 10, 64, [2.0, 1.5], [1.0]), "of a and b are 1.0000 and 1.5000; expected at most 15% apart"),
        (Statement(3, 10, 64, [2.0, math.nan], [1.0]), "b did not learn"),
    ],
)
def test_other_work_is_found(other: Statement, message: str) -> None:
    one = Statement(3, 10, 64, [2.0, 1.0], [1.0])
    train_figures.compare("a", one, "c", one)
    with pytest.raises(TrainingDiffers, match=message):
        train_figures.compare("a", one, "b", other)


def test_ratios_are_compared_with_lower_and_upper_bars(tmp_path: Path) -> None:
    part = train.Part.__new__(train.Part)
    part._plan = rounds.Plan(Path(), Path(), Path(), (0,), train.SCALES, train.CASES, train.MODELS)
    done = [
        case("memory-1024", gru_dnn_rows_per_s=100.0, dnn_rows_per_s=400.0),
        case("1rank-1024", gru_dnn_rows_per_s=80.0, dnn_rows_per_s=100.0),
        case("2ranks-1024", gru_dnn_rows_per_s=50.0, dnn_rows_per_s=90.0),
        case("data_loader", rows_per_s=140.0),
        case("loss-study", gru_dnn_seconds_to_loss=60.0, dnn_seconds_to_loss=60.0),
        case("loss-recommended", gru_dnn_seconds_to_loss=10.0, dnn_seconds_to_loss=math.inf),
        case("full-memory", gru_dnn_epoch_s=10.0),
        case("full-2ranks", gru_dnn_epoch_s=20.0),
    ]
    found = {ratio.name: (round(ratio.value, 3), ratio.bar, ratio.result) for ratio in part.ratios(done)}
    assert found == {
        "train_1rank_vs_memory_1024": (0.8, {"at_least": 0.8}, "met"),
        "train_1rank_vs_memory_1024_dnn": (0.25, {}, ""),
        "data_loader_vs_ranks_1024": (2.8, {"at_least": 3.0}, "missed"),
        "data_loader_vs_ranks_1024_dnn": (1.556, {}, ""),
        "train_time_to_loss_speedup": (6.0, {"at_least": 5.0}, "met"),
        "train_time_to_loss_speedup_dnn": (0.0, {}, ""),  # never reached
        "train_epoch_vs_memory_full": (2.0, {"at_most": 2.0}, "met"),
        "train_memory_mb_full": (7_000.0, {"at_most": 6_000}, "missed"),
    }
    report.write_json(tmp_path / "bench.json", report.content({}, {}, done, part.ratios(done)))
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["ratios"]["data_loader_vs_ranks_1024"] == {"value": 2.8, "at_least": 3.0, "result": "missed"}
    assert written["cases"][5]["dnn_seconds_to_loss"] is None  # JSON has no infinity


def test_a_name_selects_its_cases_and_long_ones_run_only_on_demand() -> None:
    assert chosen_cases(train, ["memory"]) == ("memory-64", "memory-1024", "memory-8192")
    assert chosen_cases(train, ["data_loader", "2ranks-64"]) == ("2ranks-64", "data_loader")
    assert chosen_cases(train, ["full"]) == ("full-memory", "full-2ranks")
    on_demand = {"4ranks-64", "4ranks-1024", "4ranks-8192", "full-memory", "full-2ranks"}
    assert set(chosen_cases(train, [])) == set(train.CASES) - on_demand


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--part", "train", "--cases", "pandas"], "no case pandas. There are, by part, train: memory-64, 1rank-64"),
        (["--scales", "0.1"], "--scales means something else in each part; name one with --part"),
        (["--part", "train", "--scales", "1", "1", "1", "1"], "part train takes at most 3 scales"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = bench("--out", str(tmp_path / "out"), *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_tiny_run(tmp_path: Path) -> None:
    options = ["--part", "train", "--scales", "0.004", "--rounds", "1", "--models", "gru_dnn"]
    done = bench("--out", str(tmp_path), *options, "--cases", "memory-1024", "2ranks-1024", "data_loader")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [entry["case"] for entry in found["cases"]] == ["memory-1024", "2ranks-1024", "data_loader"]
    rows = found["settings"]["train"]["train_rows"]["0.004"]
    for entry, figure in zip(found["cases"], ("gru_dnn_rows_per_s", "gru_dnn_rows_per_s", "rows_per_s"), strict=True):
        assert entry["rows"] == rows
        assert entry[figure] == entry["stated_of_runs"][figure][0] > 0
        assert entry["peak_rss_mb"] > 100
    assert set(found["ratios"]) == {"data_loader_vs_ranks_1024"}
    assert found["ratios"]["data_loader_vs_ranks_1024"]["at_least"] == 3.0
    assert set(found["settings"]["train"]["last_training_losses"]) == {"memory-1024 gru_dnn", "2ranks-1024 gru_dnn"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "bench.md", "logs"]  # no data remain
