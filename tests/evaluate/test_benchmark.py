"""The benchmark table: figures from counts by hand, marks, and sentences about its rows."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from ids_spark.evaluate import benchmark, results
from ids_spark.evaluate.literature import CORRECT, PUBLISHED, TABLE_8
from ids_spark.evaluate.results import Metric, Results
from ids_spark.evaluate.score_counts import ScoreCounts
from ids_spark.lake.filesystem import write_json
from ids_spark.lake.store import TABLE_FACTS, Lake
from ids_spark.models import artifact
from ids_spark.models.artifact import ModelCard, model_name, title_of
from ids_spark.report import benchmark_page, run_page
from tests.support.browser import Page, check_structure, numbers, text_of
from tests.support.flows import RunJob
from tests.support.models import CARD, PREPROCESSOR, WEIGHTS

TRAINING = {"epochs": 4, "seconds": 10.0, "parameters": 12345, "batch_size": 64, "peak_learning_rate": 1e-4, "ranks": 2}
TWO = np.array([[90, 10], [7, 893]])


def card(architecture: str, feature_set: str = "paper", variant: str = "") -> ModelCard:
    """Return the card of a model at 2 classes."""
    return dataclasses.replace(
        CARD,
        name=model_name(title_of(architecture, variant), 2, feature_set),
        architecture=architecture,
        variant=variant,
        feature_set=feature_set,
        classes=2,
        training=TRAINING,
        data_origin="measured",
        classes_absent_in_train=(),
    )


def scored(root: Path, *cards: ModelCard, origin: str = "measured", forest: bool = False) -> Lake:
    """Write a lake in which these models were scored, with the counts of `TWO`."""
    lake = Lake(str(root))
    results = Results("20260101T000000Z-a", "test")
    for one in cards:
        artifact.write_model(lake.uri(f"models/{one.name}/{one.version}"), one, WEIGHTS, PREPROCESSOR)
        results.add(one, ScoreCounts({2: TWO}), origin)
    if forest:
        facts = {"fit_seconds": 50.0, "nodes": 4321.0, "trees": 100.0, "depth": 20.0}
        results.add(card("random_forest"), ScoreCounts({2: TWO[::-1, ::-1].copy()}), origin, facts)
    results.write(lake, lake.uri)
    stated = {"feature_schema": "release39", "data_origin": origin, "rows": {"train": 45901, "test": 18360}}
    write_json(lake.uri(f"flows/{TABLE_FACTS}"), stated)
    return lake


def table_of(lake: Lake) -> tuple[list[benchmark.Row], benchmark.Setting]:
    models = results.newest(lake, "test")
    return benchmark.rows_of(models), benchmark.setting_of(lake, "test", models)


def test_own_figures_are_those_of_scikit_learn(tmp_path: Path) -> None:
    rows, _ = table_of(scored(tmp_path, card("dnn")))
    (own,) = (row for row in rows if not row.published)
    labels, predicted = (np.repeat(axis.ravel(), TWO.ravel()) for axis in np.indices(TWO.shape))
    expected = {"accuracy": accuracy_score(labels, predicted), "benign_false_positive_rate": 0.1, "rows": 1000}
    for average in ("macro", "weighted"):
        found = precision_recall_fscore_support(labels, predicted, average=average)
        expected |= {f"{name}_{average}": v for name, v in zip(("precision", "recall", "f1"), found, strict=False)}
    expected |= {"parameters": 12345, "epochs": 4, "seconds": 10.0, "seconds_per_epoch": 2.5}
    assert {name: metric.value for name, metric in own.figures.items() if name in expected} == pytest.approx(expected)
    assert own.configuration.endswith("Adam 0.0001 constant, batch 64, 2 ranks")


def test_a_forest_states_its_nodes_and_its_seconds_and_no_epochs(tmp_path: Path) -> None:
    rows, _ = table_of(scored(tmp_path, forest=True))
    (own,) = (row for row in rows if not row.published)
    assert (own.value("parameters"), own.value("seconds")) == (4321, 50)
    assert "epochs" not in own.figures
    assert own.configuration == "100 trees by Spark ML"


def test_a_blend_states_its_weights_and_nodes_and_no_seconds_of_an_epoch(tmp_path: Path) -> None:
    blend = dataclasses.replace(card("dnn"), training=TRAINING | {"nodes": 1000})
    lake = scored(tmp_path, blend)
    rows, _ = table_of(lake)
    (own,) = (row for row in rows if not row.published)
    assert (own.value("parameters"), own.value("seconds")) == (13345, 10)
    assert own.value("seconds_per_epoch") is None
    page = Page(run_page.render_page(results.newest(lake, "test"), {}, "test", "run1"))
    (cells,) = (row for row in page.rows if row[1:2] == ["paper"])
    assert cells[8:12] == ["12,345 + 1,000 nodes", "4", "–", "–"]


def test_rows_are_ordered_paper_operational_published_at_every_number_of_classes(tmp_path: Path) -> None:
    rows, _ = table_of(scored(tmp_path, card("dnn", "operational"), card("dnn"), forest=True))
    at_two = [(row.model, row.feature_set) for row in rows if row.classes == 2]
    assert at_two[:3] == [("dnn", "paper"), ("random_forest", "paper"), ("dnn", "operational")]
    assert [model for model, feature_set in at_two if not feature_set] == [
        row.model for row in PUBLISHED if row.classes == 2
    ]
    assert [row.classes for row in rows] == sorted(row.classes for row in rows)


def published_row(model: str, averaging: str, classes: int) -> benchmark.Row:
    (row,) = (r for r in benchmark.rows_of([]) if (r.model, r.averaging, r.classes) == (model, averaging, classes))
    return row


def test_table_8_is_whole_and_every_figure_is_in_the_column_of_its_average() -> None:
    assert len(TABLE_8) == 12
    assert all(min(row.precision, row.recall, row.f1, row.accuracy) > 0.5 and row.source for row in TABLE_8)
    # A weighted recall is the accuracy, a macro recall is not.
    assert [row.recall == row.accuracy for row in TABLE_8] == [row.averaging != "macro" for row in TABLE_8]
    weighted = published_row("GRU-DNN", "weighted", 19)
    found = {name: weighted.value(name) for name in weighted.figures}
    assert found == {"accuracy": 0.984, "precision_weighted": 0.986, "recall_weighted": 0.984, "f1_weighted": 0.982}
    macro = published_row("DNN", "macro", 6)
    assert (macro.value("precision_macro"), macro.value("f1_macro"), macro.value("f1_weighted")) == (0.725, 0.665, None)
    assert published_row("LSTM (L2D2)", "not stated", 19).value("precision_not_stated") == 0.96
    assert published_row("random forest", "macro", 19).value("f1_macro") == 0.921


def test_the_counts_that_the_study_prints_fit_its_rates() -> None:
    dnn, gru_dnn = CORRECT
    assert [f"{100 * each.false_alarms:.1f}" for each in (dnn, gru_dnn)] == ["9.2", "10.5"]
    assert [f"{each.accuracy:.3f}" for each in (dnn, gru_dnn)] == ["0.996", "0.996"]
    counts = np.array([[34_151, 3_456], [2_529, 1_571_981]])  # 37,607 benign rows, 1,612,117 - 37,607 attacks
    labels, predicted = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    assert dnn.f1_macro == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert published_row("DNN", "weighted", 2).value("benign_false_positive_rate") == dnn.false_alarms


def own_row(model: str, f1: Metric, classes: int = 2, of_classes: int = 2, **more: Metric) -> benchmark.Row:
    figures = {"f1_macro": f1, **more}
    return benchmark.Row(model, "paper", classes, of_classes, "run1", "", "macro and weighted", "measured", figures)


def test_the_best_model_of_each_figure_is_named_with_the_difference_to_the_next_and_its_noise() -> None:
    rows = [
        own_row("b", Metric(0.90, 0.88, 0.91), benign_false_positive_rate=Metric(0.08)),
        own_row("a", Metric(0.95, 0.93, 0.96), benign_false_positive_rate=Metric(0.10)),
        own_row("c", Metric(0.94, 0.93, 0.96)),
    ]
    f1, alarms = benchmark.best_rows(rows, ["f1_macro", "benign_false_positive_rate", "accuracy"])
    assert (f1.first.model, f1.second.model) == ("a", "c")
    assert (f1.ahead.value, f1.ahead.noise) == pytest.approx((0.01, np.hypot(0.02, 0.02)))
    assert f1.ahead.beyond_noise is False
    assert benchmark.difference(rows[1], rows[0], "f1_macro").beyond_noise is True
    assert (alarms.first.model, alarms.ahead.value) == ("b", pytest.approx(0.02))  # fewer are better
    assert alarms.ahead.beyond_noise is None
    assert [benchmark_page.behind(row, rows) for row in rows][1] == "best"
    assert benchmark_page.behind(rows[0], rows) == "−0.0500, beyond noise (±0.022)"


def test_a_model_of_19_classes_stands_beside_the_one_trained_at_the_level() -> None:
    own, finer = own_row("a", Metric(0.95)), own_row("a", Metric(0.94), 2, 19)
    alone = own_row("b", Metric(0.93), 2, 19)
    assert benchmark.levels_of_one_model([own, finer, alone]) == [(finer, own)]
    rows, setting = [own, finer, alone], benchmark.Setting("test", None, "measured", {})
    page = Page(benchmark_page.render_page(rows, setting, "run1"))
    check_structure(page)
    assert [row[0] for row in page.rows if row[1:2] == ["paper"]].count("a of 19") == 1
    assert text_of(page.element("one-model")).endswith("a paper 2 0.9400 0.9500 −0.0100")
    console = Console(width=120, record=True)
    benchmark_page.print_tables(rows, setting, console)
    text = console.export_text()
    assert "b of 19" in text
    assert "a of 19 " not in text.split("2 classes")[-1]


def test_other_rows_than_the_official_ones_are_named_and_called_not_comparable(tmp_path: Path) -> None:
    rows, setting = table_of(scored(tmp_path, card("dnn")))
    assert benchmark.scored_rows(rows) == [1000]
    notes = benchmark_page.notes(rows, setting)
    assert numbers(notes[0])[:2] == ["45,901", "18,360"]
    for text in ("measured", "release39", "1,000"):
        assert text in notes[0]
    assert numbers(notes[1]) == [
        "7,160,831",
        "1,614,182",
    ]  # rows of the official split, to which published figures refer
    official = benchmark.Setting("test", "original45", "measured", {"test": 1_614_182, "train": 7_160_831})
    assert official.official
    assert not setting.official
    assert len(benchmark_page.notes(rows, official)) == len(notes) - 1
    other = dataclasses.replace(rows[0], figures={"rows": Metric(2000)})
    assert benchmark.scored_rows([*rows, other]) == [1000, 2000]
    assert len(benchmark_page.notes([*rows, other], setting)) == len(notes) + 1
    page = Page(benchmark_page.render_page(rows, setting, "run1"))
    check_structure(page)
    assert [text_of(note) for note in page.element("notes")] == notes
    assert page.element("notes").get("data-official") == "false"


@pytest.mark.parametrize("origin", ["measured", "synthetic"])
def test_synthetic_flows_are_marked_in_every_form(tmp_path: Path, origin: str) -> None:
    rows, setting = table_of(scored(tmp_path, card("dnn"), origin=origin))
    console = Console(width=120, record=True)
    benchmark_page.print_tables(rows, setting, console)
    for text in (
        benchmark_page.markdown(rows, setting),
        benchmark_page.render_page(rows, setting, "run1"),
        console.export_text(),
    ):
        assert ("SYNTHETIC FLOWS: every row was generated" in text) == (origin == "synthetic")


def test_the_terminal_shows_every_figure_at_120_columns(tmp_path: Path) -> None:
    rows, setting = table_of(scored(tmp_path, card("gru_dnn", "operational", variant="best"), forest=True))
    console = Console(width=120, record=True)
    benchmark_page.print_tables(rows, setting, console)
    text = console.export_text()
    assert "…" not in text
    (line,) = (line.split() for line in text.splitlines() if line.startswith(" gru_dnn-best"))
    assert line[:3] == ["gru_dnn-best", "operational", "0.9521"]
    assert line[4:6] == ["0.9830", "0.1000"]
    assert line[-2:] == ["12,345", "10"]


def test_external_text_is_escaped_and_shown_unchanged(tmp_path: Path) -> None:
    rows, setting = table_of(scored(tmp_path, card("dnn")))
    odd = benchmark.Row("<i>|*", "paper", 2, 2, "r", "a|b\nc", "", "measured", {})
    assert "| \\<i\\>\\|\\* | paper |" in benchmark_page.markdown([odd], setting)
    assert "a\\|b c |" in benchmark_page.markdown([odd], setting)
    page = benchmark_page.render_page([odd, *rows], setting, "<script>")
    assert "<i>" not in page
    assert "<script>" not in page
    assert 'src="http' not in page
    (own,) = (row for row in Page(page).rows if row[:2] == ["dnn", "paper"])
    assert [text.split()[0] for text in own[2:5]] == ["0.9521", "best", "0.9830"]
    assert len(Page(page).all("data-published")) == len([row for row in rows if row.published])


def test_the_job_writes_all_forms_whatever_is_missing(
    tmp_path: Path, run_job: RunJob, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_job("benchmark") == 2
    assert "run jobs/score.py on this lake first" in caplog.text
    scored(tmp_path / "lake", card("dnn"), forest=True)
    (tmp_path / "lake/flows" / TABLE_FACTS).unlink()  # metrics can exist without the flows
    assert run_job("benchmark") == 0
    folder = tmp_path / "lake/reports/benchmark"
    names = ["macro-f1.png", "table.html", "table.md", "table.parquet"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert "feature schema unknown" in (folder / "table.md").read_text()
    tidy = pd.read_parquet(folder / "table.parquet")
    own = tidy[(tidy["model"] == "dnn") & (tidy["source"] == "this lake")].set_index("metric")["value"]
    assert own["accuracy"] == pytest.approx(0.983)
    assert own["f1_macro"] == pytest.approx(np.mean([180 / 197, 1786 / 1803]))
    published = tidy[tidy["data_origin"] == "published"]
    figures = ("accuracy", "precision", "recall", "f1", "benign_false_positive_rate")
    assert len(published) == sum(getattr(row, name) is not None for row in PUBLISHED for name in figures)
