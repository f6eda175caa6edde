"""The page of the scored models against scikit-learn and figures by hand, and as a browser shows it."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from ids_spark.dataset.tables import CONFUSION, METRICS
from ids_spark.dataset.taxonomy import CLASS6, CLASSES
from ids_spark.evaluate import results
from ids_spark.evaluate.results import Results
from ids_spark.evaluate.score_counts import ScoreCounts
from ids_spark.lake.parquet import write_rows
from ids_spark.lake.store import Lake
from ids_spark.models import artifact
from ids_spark.models.artifact import ModelCard, model_name
from ids_spark.report import run_figures, run_page
from ids_spark.report.run_page import Confusion
from tests.support.browser import Page, check_structure, numbers, show, text_of
from tests.support.flows import RunJob
from tests.support.incident_rows import NIGHT, alert, tables
from tests.support.models import CARD, PREPROCESSOR, WEIGHTS

HISTORY = [
    {"epoch": i + 1, "loss": loss, "validation_loss": held, "validation_accuracy": right, "seconds": 2.0}
    for i, (loss, held, right) in enumerate([(0.9, 0.8, 0.5), (0.6, 0.55, 0.7), (0.4, 0.5125, 0.75), (0.3, 0.6, 0.72)])
]
TRAINING = {
    "ranks": 2,
    "batch_size": 1024,
    "peak_learning_rate": 0.0005,
    "epochs": 4,
    "best_epoch": 3,
    "parameters": 12345,
    "seconds": 9.0,
    "history": HISTORY,
}
# label → predicted; Benign 10, DDoS 20, DoS 10, no MQTT, Recon 4, no Spoofing
SMALL = np.zeros((6, 6), dtype=np.int64)
for cell, n in {
    (0, 0): 7,
    (0, 1): 1,
    (0, 5): 2,
    (1, 1): 15,
    (1, 2): 5,
    (2, 1): 6,
    (2, 2): 4,
    (4, 0): 1,
    (4, 4): 3,
}.items():
    SMALL[cell] = n

TWO = np.array([[90, 10], [7, 893]])


def card_of(title: str, classes: int = 6, **more: object) -> ModelCard:
    known = {"data_origin": "measured", "classes_absent_in_train": ("MQTT",), "training": TRAINING}
    name = model_name(title, classes, "paper")
    return dataclasses.replace(CARD, name=name, architecture=title, classes=classes, **known | more)


def score(lake: Path, run_id: str, *scored: tuple[ModelCard, np.ndarray], stored: bool = True) -> Path:
    """Write the tables of scoring, and the models unless `stored` is false."""
    results = Results(run_id, "test")
    for card, confusion in scored:
        results.add(card, ScoreCounts({card.classes: confusion}), card.data_origin)
        if stored:
            artifact.write_model(str(lake / "models" / card.name / card.version), card, WEIGHTS, PREPROCESSOR)
    made = Lake(str(lake))
    results.write(made, made.uri)
    return lake


def newest(lake: Path) -> list[results.ScoredModel]:
    return results.newest(Lake(str(lake)), "test")


def page_of(lake: Path) -> Page:
    """The page without its pictures, which take seconds to draw."""
    return Page(run_page.render_page(newest(lake), {}, "test", "report"))


def written(lake: Path) -> str:
    """The page, written with its pictures."""
    run_page.write_page(str(lake / "reports/run"), newest(lake), "test", "report")
    return (lake / "reports/run/run.html").read_text()


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def table_on_terminal(lake: Path) -> str:
    console = Console(width=120, file=io.StringIO())
    run_page.print_comparison(newest(lake), "test", console)
    return console.file.getvalue()


def labels_of(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells = np.argwhere(confusion)
    return tuple(np.repeat(cells, confusion[confusion > 0], axis=0).T)


def test_every_figure_on_the_page_is_that_of_scikit_learn_or_of_the_card(tmp_path: Path) -> None:
    page = page_of(score(tmp_path, "run1", (card_of("gru_dnn"), SMALL), (card_of("dnn"), SMALL[:, ::-1].copy())))
    check_structure(page)
    rows = page.rows
    truth, predicted = labels_of(SMALL)
    assert rows[0][2:6] == ["accuracy", "macro F1", "weighted F1", "benign FPR"]
    expected = [accuracy_score(truth, predicted)]
    expected += [f1_score(truth, predicted, average=average, zero_division=0) for average in ("macro", "weighted")]
    trained = ["12,345", "4", "3", "2.25", "2", "1,024", "0.0005"]
    assert ["gru_dnn best", "paper", *(f"{value:.4f}" for value in expected), "0.3000", "–", "–", *trained] in rows
    occurring = [0, 1, 2, 4, 5]
    scores = precision_recall_fscore_support(truth, predicted, labels=occurring, zero_division=0)
    for i, *of_class, support in zip(occurring, *scores, strict=True):
        shown = [CLASS6[i], *(f"{value:.4f}" for value in of_class), str(support)]
        interval, *_ = (row[4] for row in rows if [*row[:4], *row[5:]] == shown)
        low, high = map(float, interval.split(" to "))
        assert low <= of_class[2] + 5e-4
        assert of_class[2] <= high + 5e-4
    assert ["DoS", "DDoS", "6", "10"] in rows
    assert [text.split()[0] for _, text in page.all("data-best")] == ["gru_dnn"]


def test_the_findings_are_those_one_counts_by_hand(tmp_path: Path) -> None:
    score(tmp_path, "run1", (card_of("gru_dnn"), SMALL))
    (model,) = newest(tmp_path)
    found = run_page.findings(model)
    assert found.false_alarms == Confusion("Benign", "Attack", 3, 10)
    assert found.missed_attacks == Confusion("Attack", "Benign", 1, 34)
    assert found.most_frequent == [
        Confusion("DoS", "DDoS", 6, 10), Confusion("DDoS", "DoS", 5, 20), Confusion("Benign", "Spoofing", 2, 10)
    ]  # fmt: skip
    assert found.most_frequent[0].share == 0.6
    assert found.highest_share is None
    assert (found.absent, found.epochs, found.best_epoch) == (("MQTT",), 4, 3)
    texts = page_of(tmp_path).texts("data-finding")
    assert {name: numbers(text) for name, text in texts.items()} == {
        "false-alarms": ["3", "10", "30.0%"],
        "missed-attacks": ["1", "34", "2.9%"],
        "confused": ["6", "10", "60.0%", "5", "20", "25.0%", "2", "10", "20.0%"],
        "absent-classes": [],
        "best-epoch": ["3", "4"],
    }
    assert "MQTT" in texts["absent-classes"]


def test_a_rare_class_that_is_always_confused_is_named_by_its_share(tmp_path: Path) -> None:
    rare = np.diag([50, 50, 50, 50, 0, 50])
    rare[0, 1], rare[1, 2], rare[2, 3], rare[4, 3] = 9, 8, 7, 2
    more = {"classes_absent_in_train": (), "training": TRAINING | {"best_epoch": 4}}
    (model,) = newest(score(tmp_path, "run2", (card_of("gru_dnn", **more), rare)))
    assert run_page.findings(model).highest_share == Confusion("Recon", "MQTT", 2, 2)
    texts = page_of(tmp_path).texts("data-finding")
    assert numbers(texts["highest-share"]) == ["2", "2", "100.0%"]
    assert numbers(texts["best-epoch"]) == ["4"]
    assert list(texts)[-2:] == ["all-classes", "best-epoch"]


def test_without_benign_flows_or_confusions_the_page_states_that(tmp_path: Path) -> None:
    (model,) = newest(score(tmp_path, "run3", (card_of("gru_dnn"), np.diag([0, 1, 1, 1, 1, 1]))))
    found = run_page.findings(model)
    assert (found.false_alarms, found.confusions) == (None, [])
    assert found.missed_attacks == Confusion("Attack", "Benign", 0, 5)
    names = list(page_of(tmp_path).texts("data-finding"))
    assert names[:3] == ["false-alarms-unknown", "missed-attacks", "nothing-confused"]


def test_only_the_newest_run_of_each_model_is_shown(tmp_path: Path) -> None:
    score(tmp_path, "20260101T000000Z-a", (card_of("dnn"), SMALL), (card_of("gru_dnn"), SMALL))
    score(tmp_path, "20260102T000000Z-a", (card_of("dnn"), 2 * SMALL))
    found = {model.title: (model.run_id, int(model.confusion.sum())) for model in newest(tmp_path)}
    assert found == {"dnn": ("20260102T000000Z-a", 88), "gru_dnn": ("20260101T000000Z-a", 44)}


def test_a_reference_without_a_model_is_shown_with_what_its_data_allow(tmp_path: Path) -> None:
    score(tmp_path, "run1", (card_of("gru_dnn"), SMALL))
    score(tmp_path, "run2", (card_of("random_forest", version=None), SMALL), stored=False)
    score(tmp_path, "run3", (card_of("unmatched", version=""), SMALL), stored=False)
    (tmp_path / "confusion/run3.parquet").unlink()
    metrics = pd.read_parquet(tmp_path / "metrics/run2.parquet")
    fact = metrics.iloc[[0]].assign(metric="nodes", value=51234.0, support=None)
    write_rows(str(tmp_path / "metrics/run2.parquet"), [*records(metrics), *records(fact)], METRICS)
    page = Page(written(tmp_path))
    pictures = {path.name for path in (tmp_path / "reports/run").glob("*.png")}
    assert pictures == {
        *(f"gru_dnn-6-paper-{kind}.png" for kind in ("curves", "classes", "shares", "counts")),
        *(f"random_forest-6-paper-{kind}.png" for kind in ("classes", "shares", "counts")),
        "unmatched-6-paper-classes.png",
    }
    assert len(list(page.root.iter("img"))) == len(pictures)
    check_structure(page)
    found = dict(page.all("data-finding"))
    assert "models/random_forest-6-paper" in " ".join(t for name, t in page.all("data-finding") if name == "not-stored")
    assert "nodes 51,234." in found["measured"]
    assert "no-confusion-matrix" in found
    assert ["random_forest best", "paper", "0.6591"] in [row[:3] for row in page.rows]
    (line,) = [line for line in table_on_terminal(tmp_path).splitlines() if "random_forest" in line]
    assert [cell.strip() for cell in line.split("│")[1:-1]][-5:] == ["0.3000", "–", "–", "–", "–"]


def test_a_model_whose_directory_was_removed_is_still_shown(tmp_path: Path) -> None:
    score(tmp_path, "run1", (card_of("dnn"), SMALL))
    assert " 4 │       9 │" in table_on_terminal(tmp_path)
    shutil.rmtree(tmp_path / "models/dnn-6-paper")
    assert f"models/dnn-6-paper/{CARD.version}" in page_of(tmp_path).texts("data-finding")["not-stored"]
    assert " – │       – │" in table_on_terminal(tmp_path)


def test_the_job_writes_the_page_and_prints_its_path(run_job: RunJob, tmp_path: Path, caplog, capsys) -> None:
    lake = score(tmp_path / "lake", "run1", (card_of("dnn"), SMALL))
    assert run_job("report") == 0
    assert f"page file://{lake}/reports/run/run.html models=1" in caplog.text
    assert "0.6591" in capsys.readouterr().out
    content = (lake / "reports/run/run.html").read_text()
    assert "://" not in content
    page = Page(content)
    check_structure(page)
    assert page.all("data-origin") == []
    audit = pd.read_parquet(lake / "audit").iloc[0]
    assert (audit["status"], audit["data_origin"]) == ("done", "measured")
    assert audit["models"].tolist() == [f"dnn-6-paper/{CARD.version}"]
    assert not (lake / ".staging").exists()


def test_a_changed_model_or_an_unknown_class_is_refused_and_the_old_page_stays(
    run_job: RunJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = score(tmp_path / "lake", "run1", (card_of("dnn"), SMALL))
    assert run_job("report") == 0
    before = (lake / "reports/run/run.html").read_bytes()
    weights = lake / "models/dnn-6-paper" / CARD.version / "weights.npz"
    kept = weights.read_bytes()
    weights.write_bytes(b"x")
    assert run_job("report") == 2
    assert "weights.npz was changed after training" in caplog.text
    weights.write_bytes(kept)
    confusion = pd.read_parquet(lake / "confusion/run1.parquet")
    renamed = records(confusion.replace({"predicted_class": {"MQTT": "Mqtt"}}))
    write_rows(str(lake / "confusion/run1.parquet"), renamed, CONFUSION)
    assert run_job("report") == 2
    assert "confusion of dnn-6-paper in run run1 has classes Mqtt; expected Benign, DDoS, " in caplog.text
    assert (lake / "reports/run/run.html").read_bytes() == before


def test_an_empty_lake_is_refused(run_job: RunJob, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run_job("report") == 2
    assert "holds no metrics of split 'test'; run jobs/score.py on this lake first" in caplog.text
    assert not (tmp_path / "lake/reports").exists()


def test_synthetic_flows_are_marked(tmp_path: Path) -> None:
    score(tmp_path, "run1", (card_of("dnn", data_origin="synthetic"), SMALL))
    assert page_of(tmp_path).texts("data-origin").keys() == {"synthetic"}
    assert "SYNTHETIC flows" in table_on_terminal(tmp_path)
    score(tmp_path, "run2", (card_of("gru_dnn"), SMALL))
    page = page_of(tmp_path)
    assert page.texts("data-origin").keys() == {"mixed"}
    assert [row[0] for row in page.rows[2:4]] == ["dnn best synthetic", "gru_dnn best measured"]


def test_external_texts_are_escaped_and_do_not_change_paths(tmp_path: Path) -> None:
    title = "../<img src=x onerror=alert(1)>"
    score(tmp_path, "<script>", (card_of(title, version="<b>"), SMALL), stored=False)
    page = written(tmp_path)
    for text in ("<img src=x", "<script", "<b>v", "<b><"):
        assert text not in page
    assert "../&lt;img src=x onerror=alert(1)&gt;" in page
    names = {path.name for path in (tmp_path / "reports/run").iterdir()}
    assert len(names) == 4
    assert all("/" not in name and "<" not in name for name in names)


def texts(figure: Figure) -> list[tuple[str, tuple[float, float]]]:
    return [(text.get_text(), text.get_position()) for text in figure.axes[0].texts]


def test_the_pictures_have_the_right_figures() -> None:
    spans = [("Quiet", 0, 1), ("Loud", 1, 5)]
    counts = run_figures.confusion_map(SMALL, CLASS6, spans, shares=False)
    cells = {(int(y), int(x)): text for text, (x, y) in texts(counts) if text.isdigit()}
    assert cells == {tuple(cell): str(SMALL[tuple(cell)]) for cell in np.argwhere(SMALL).tolist()}
    assert [(text, y) for text, (_, y) in texts(counts) if text in ("Quiet", "Loud")] == [("Quiet", 0), ("Loud", 3)]
    many = SMALL.copy()
    many[1] = [0, 991, 9, 0, 0, 0]  # 0.9 % is below the least share
    shares = run_figures.confusion_map(many, CLASS6, [], shares=True)
    cells = {(int(y), int(x)): text for text, (x, y) in texts(shares)}
    assert cells[1, 1] == "99.1"
    assert (1, 2) not in cells
    assert [cells[0, 0], cells[0, 1], cells[4, 0], cells[4, 4]] == ["70.0", "10.0", "25.0", "75.0"]
    curves = run_figures.learning_curves(HISTORY, 3)
    drawn = {line.get_label(): list(line.get_ydata()) for axes in curves.axes for line in axes.get_lines()}
    assert drawn["training loss"] == [0.9, 0.6, 0.4, 0.3]
    assert drawn["validation loss"] == [0.8, 0.55, 0.5125, 0.6]
    assert drawn["validation accuracy"] == [0.5, 0.7, 0.75, 0.72]
    assert [axes.get_title("left") for axes in curves.axes] == [
        "validation loss, 0.5125 at epoch 3",
        "validation accuracy, 0.7500 at epoch 3",
    ]
    bars = run_figures.class_bars({"Benign": results.Scores(0.875, 0.7, 0.7778, 10)})
    assert [text for text, _ in texts(bars)] == ["0.875", "0.700", "0.778"]
    assert [text.get_text() for text in bars.axes[1].texts] == ["10"]


@pytest.mark.parametrize(("share", "shown"), [(1.0, "100"), (0.99999, "99.9"), (0.9996, "99.9"), (0.5, "50.0")])
def test_only_all_is_a_hundred_percent(share: float, shown: str) -> None:
    assert run_figures.percentage(share) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0"), (99_999, "99999"), (123_456, "123k"), (999_499, "999k"), (1_250_000, "1.2M")]
)
def test_large_counts_fit_their_cell(count: int, shown: str) -> None:
    assert run_figures.compact(count) == shown


def nineteen() -> np.ndarray:
    """A full matrix, whose picture of 19 classes takes the most bytes."""
    return np.random.default_rng(7).integers(1, 300, (19, 19)) ** 2 + np.diag(np.full(19, 900_000))


def test_twenty_models_take_less_than_6_mb_and_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    score(tmp_path, "run1", (card_of("dnn", 19), nineteen()), (card_of("dnn", 6), SMALL), (card_of("dnn", 2), TWO))
    page = written(tmp_path)
    assert len(page) * 20 / 3 < 6_000_000  # seven of each number of classes
    pictures = {path: path.read_bytes() for path in (tmp_path / "reports/run").glob("*.png")}
    assert written(tmp_path) == page
    for path, content in pictures.items():
        assert path.read_bytes() == content
        assert Image.open(path).mode == "P"
    assert run_page.categories(19) == [
        ("Benign", 0, 1), ("DDoS", 1, 4), ("DoS", 5, 4), ("MQTT", 9, 5), ("Recon", 14, 4), ("Spoofing", 18, 1)
    ]  # fmt: skip
    assert run_page.categories(6) == run_page.categories(2) == []


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of seven models, one with a name wider than a phone, one without a directory."""
    lake = tmp_path_factory.mktemp("many")
    matrices = {2: TWO, 6: SMALL, 19: nineteen()}
    models = [(card_of(f"gru_dnn-{n * 'x'}", classes), found) for n in (1, 60) for classes, found in matrices.items()]
    score(lake, "run1", *models)
    score(lake, "run2", (card_of("random_forest"), SMALL), stored=False)
    written(lake)
    return lake / "reports/run/run.html"


@pytest.mark.parametrize("width", [420, 1200])
def test_a_browser_shows_every_picture_and_never_scrolls_sideways(width: int, many: Path, tmp_path: Path) -> None:
    shown = show(many, tmp_path, width)
    assert shown.window_width == width
    assert shown.page_width <= width
    assert len(shown.pictures) == 6 * 4 + 3
    assert all(natural > 300 and visible > 200 for natural, visible in shown.pictures)
    assert shown.places == 0
    assert "models" in shown.visible
    (two, *_) = (each for each in Page(many.read_text()).root.iter("section") if "-2-" in each.get("data-model", ""))
    assert numbers(text_of(two.find(".//*[@data-finding='false-alarms']"))) == ["10", "100", "10.0%"]
    assert "(10.0%)" in shown.closed
    for name in set(CLASSES[19]) - {"Benign"}:
        assert name in shown.opened
    assert "MQTT-Malformed_Data" not in shown.closed


def test_a_history_of_one_epoch_is_drawn(tmp_path: Path) -> None:
    training = TRAINING | {"epochs": 1, "best_epoch": 1, "history": HISTORY[:1]}
    (model,) = newest(score(tmp_path, "run1", (card_of("dnn", training=training), SMALL)))
    assert "curves" in run_page.draw(model)
    assert json.loads(json.dumps(model.training)) == training


def test_a_lake_with_nights_and_without_metrics(run_job: RunJob, tmp_path: Path, capsys) -> None:
    incidents, _ = tables([alert("scan", "pump-1")], shown={"scan": True})
    Lake(str(tmp_path / "lake")).write("incidents", incidents, event_date=NIGHT)
    assert run_job("report") == 0
    assert "no verdict yet" in capsys.readouterr().out
    assert not (tmp_path / "lake/reports").exists()
    score(tmp_path / "lake", "run1", (card_of("dnn"), SMALL))
    assert run_job("report", report__nights=1) == 0
    printed = capsys.readouterr().out
    assert "0.6591" in printed
    assert "1 night" in printed


def test_nodes_of_trees_stand_beside_the_parameters_of_a_network(tmp_path: Path) -> None:
    of_blend = card_of("dnn", training=TRAINING | {"nodes": 6789})
    of_trees = card_of("gru_dnn", training={"nodes": 4321, "seconds": 1.0})
    page = page_of(score(tmp_path, "r1", (of_blend, np.eye(6, dtype=int)), (of_trees, np.eye(6, dtype=int))))
    cells = [cell for row in page.rows for cell in row]
    assert "12,345 + 6,789 nodes" in cells
    assert "4,321 nodes" in cells
