"""A page as its tables, and as a browser shows it, in a headless Chromium where one is installed."""

import html.parser
import json
import re
import shutil
import subprocess
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ASK = """<script>
addEventListener("load", () => {
  const facts = {closed: document.body.innerText};
  document.querySelectorAll("details").forEach(each => each.open = true);
  facts.opened = document.body.innerText;
  facts.pictures = [...document.images].map(each => [each.naturalWidth, each.getBoundingClientRect().width]);
  facts.page_width = document.documentElement.scrollWidth;
  facts.window_width = innerWidth;
  facts.places = [...document.links].filter(each => !document.getElementById(each.hash.slice(1))).length;
  parent.postMessage(facts, "*");
});
</script>"""


FRAME = """<!doctype html><script>
addEventListener("message", (event) => {
  document.getElementById("facts").textContent = encodeURIComponent(JSON.stringify(event.data));
});
</script><body><i id="facts"></i><iframe src="%s" width="%d" height="900" style="border: 0"></iframe></body>"""
"""A headless window is never narrower than 500 pixels; a frame is as narrow as a phone."""


@dataclass(frozen=True)
class Shown:
    """What a browser made of a page.

    Attributes:
        closed: Text that is seen before anything is opened.
        opened: Text with every `details` open.
        pictures: Natural and shown width of each picture, CSS pixels; natural 0 is a broken one.
        page_width: Of the content, CSS pixels; more than `window_width` is a page that scrolls sideways.
        window_width: Of the frame.
        places: Links to places that are not on the page.
    """

    closed: str
    opened: str
    pictures: list[tuple[float, float]]
    page_width: int
    window_width: int
    places: int


def show(page: Path, work: Path, width: int) -> Shown:
    """Open a copy of a page that holds a script which looks at it; skips the test where no browser is installed."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    copy, frame = work / f"copy-{width}.html", work / f"frame-{width}.html"
    copy.write_text(page.read_text().replace("</body>", f"{ASK}</body>"))
    frame.write_text(FRAME % (copy.as_uri(), width))
    profile = f"--user-data-dir={work / f'profile-{width}'}"
    command = [found, *FLAGS, profile, "--window-size=1600,1000", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    answer = re.search(r'<i id="facts">([^<]+)</i>', done.stdout)
    assert answer is not None, done.stderr
    return Shown(**json.loads(urllib.parse.unquote(answer[1])))


class Rows(html.parser.HTMLParser):
    """Every table row of a page as a list of cell texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        self._cell = self._cell or tag in ("td", "th")
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())
