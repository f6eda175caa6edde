"""Templates: read from the package as a folder and as a zip file, strict about names, escaping every value."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest

import ids_spark
from ids_spark.base import packaging
from ids_spark.dataset.features import ORIGINAL_45
from ids_spark.evaluate import benchmark, leakage
from ids_spark.evaluate.leakage import Measure
from ids_spark.report import benchmark_page, html, leakage_page, night_page
from ids_spark.report.style import SEVERITY_COLOURS
from tests.support.browser import Page, check_structure, show
from tests.support.night_pages import busy

FROM_ZIP = """
import json, sys
sys.path.insert(0, sys.argv[1])
import jinja2
import ids_spark
from ids_spark.evaluate import benchmark
from ids_spark.report import benchmark_page
page = benchmark_page.render_page(benchmark.rows_of([]), benchmark.Setting("test", None, "synthetic", {}), "run1")
templates = jinja2.PackageLoader("ids_spark.report").list_templates()
print(json.dumps({"file": ids_spark.__file__, "page": page, "templates": templates}))
"""


def test_templates_are_read_from_the_zip_alone(tmp_path: Path) -> None:
    zipped = tmp_path / "ids_spark.zip"
    zipped.write_bytes(packaging.archive())
    command = [sys.executable, "-I", "-c", FROM_ZIP, str(zipped)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file"].startswith(str(zipped))
    folder = Path(ids_spark.__file__).parent / "report/templates"
    assert found["templates"] == sorted(path.name for path in folder.iterdir())
    page = Page(found["page"])
    assert page.texts("data-origin").keys() == {"synthetic"}
    assert len(page.all("data-published")) > 10


def test_pages_extend_one_layout_and_hold_no_style_of_their_own() -> None:
    folder = Path(ids_spark.__file__).parent / "report/templates"
    pages = {path.name for path in folder.glob("*.html.j2")} - {"base.html.j2", "macros.html.j2"}
    assert pages == {
        "adaptation.html.j2",
        "benchmark.html.j2",
        "index.html.j2",
        "leakage.html.j2",
        "night.html.j2",
        "run.html.j2",
    }
    for name in pages:
        content = (folder / name).read_text()
        assert content.startswith('{% extends "base.html.j2" %}')
        assert "style=" not in content
        assert "<style" not in content


def test_severities_and_drift_levels_of_a_page_have_a_style_of_their_own() -> None:
    page = Page(night_page.render_page(busy(), {}))
    style = "".join(page.root.find("head/style").itertext())
    assert {level for level, _ in page.all("data-level")} == {"significant", "moderate", "stable"}
    assert all(f'[data-level="{level}"]' in style for level in ("significant", "moderate"))
    assert {severity for severity, _ in page.all("data-severity")} == set(SEVERITY_COLOURS)
    for severity, colour in SEVERITY_COLOURS.items():
        assert f'[data-severity="{severity}"] {{ --colour: {colour}; }}' in style


def test_a_value_that_a_template_misses_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="is undefined"):
        html.render("night.html.j2", run_id="run1", data_origins=["measured"])


def benchmark_content() -> str:
    setting = benchmark.Setting("test", "original45", "measured", {"train": 10, "test": 5})
    return benchmark_page.render_page(benchmark.rows_of([]), setting, "run1")


def leakage_content() -> str:
    pair = ("Benign", "ARP_Spoofing")
    plan = leakage.leakage_plan(ORIGINAL_45, 1, [pair, ("MQTT-DDoS-Connect_Flood", "MQTT-DoS-Connect_Flood")], 10, 1e-8)
    figures = {Measure(what, "train", name): 1 for what in ("flows", "sampled") for name in pair}
    figures |= {
        Measure(what, "train", *pair, name): 0.75 for what in ("auc", "auc_ranges") for name in plan.schema.features
    }
    findings = leakage_page.Findings(figures, plan)
    return leakage_page.render_page(findings, [], leakage_page.draw(findings), "run1", "measured")


@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("content", [benchmark_content, leakage_content])
def test_a_browser_never_scrolls_sideways(content: Callable[[], str], width: int, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(content())
    check_structure(Page(page.read_text()))
    shown = show(page, tmp_path, width)
    assert shown.window_width == width
    assert shown.page_width <= width
    assert shown.places == 0
    assert all(natural > 300 and visible > 150 for natural, visible in shown.pictures)
