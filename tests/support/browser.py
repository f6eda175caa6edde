"""A page as its elements and table rows, and as a browser shows it: a headless Chromium, if installed."""

import base64
import hashlib
import html
import html.parser
import itertools
import json
import re
import shutil
import subprocess
import urllib.parse
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
VOID = ("meta", "img", "br", "link", "hr", "input")
ASK = """<script>
addEventListener("load", () => {
  const facts = {closed: document.body.innerText};
  const named = [...document.querySelectorAll("[id]")];
  facts.visible = named.filter(each => each.getClientRects().length).map(each => each.id);
  document.querySelectorAll("details").forEach(each => each.open = true);
  facts.opened = document.body.innerText;
  facts.pictures = [...document.images].map(each => [each.naturalWidth, each.getBoundingClientRect().width]);
  facts.page_width = document.documentElement.scrollWidth;
  facts.window_width = innerWidth;
  const here = [...document.links].filter(each => each.getAttribute("href").startsWith("#"));
  facts.places = here.filter(each => !document.getElementById(each.hash.slice(1))).length;
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
    """A page as a browser shows it.

    Attributes:
        closed: Text that is visible before anything is opened.
        visible: Ids of the elements that are visible before anything is opened.
        opened: Text with every `details` open.
        pictures: Natural and shown width of each picture, CSS pixels; natural width 0 is a broken picture.
        page_width: Of the content, CSS pixels; more than `window_width` is a page that scrolls sideways.
        window_width: Of the frame.
        places: Links to places that are not on the page.
    """

    closed: str
    visible: list[str]
    opened: str
    pictures: list[tuple[float, float]]
    page_width: int
    window_width: int
    places: int


def show(page: Path, work: Path, width: int) -> Shown:
    """Open a copy of a page with a script that inspects it; skips the test if no browser is installed."""
    return Shown(**ask(page, work, width, ASK))


def ask(page: Path, work: Path, width: int, script: str, fragment: str = "") -> Any:
    """Return what a script posts that runs in a copy of a page; skips the test if no browser is installed.

    Args:
        page: The page; the copy lies beside it, so that its relative links lead to the same files.
        work: Empty folder of this call for the frame and the profile of the browser.
        width: Of the frame, CSS pixels.
        script: Begins with `<script>`; the content security policy of the copy allows it beside what the page allows.
        fragment: End of the address, with `#`.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    copy, frame = page.with_name(f"copy-{width}-{page.name}"), work / f"frame-{width}.html"
    content = page.read_text()
    run = script.removeprefix("<script>").removesuffix("</script>")
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(run.encode()).digest()).decode()}'"
    if "script-src" in content.split("</head>")[0]:
        content = content.replace("script-src", f"script-src {allowed}", 1)
    else:
        content = content.replace("default-src 'none'", f"default-src 'none'; script-src {allowed}", 1)
    copy.write_text(content.replace("</body>", f"{script}</body>"))
    frame.write_text(FRAME % (html.escape(copy.as_uri() + fragment), width))
    profile = f"--user-data-dir={work / f'profile-{width}'}"
    command = [found, *FLAGS, profile, "--window-size=1600,1000", "--virtual-time-budget=20000", "--dump-dom"]
    try:
        done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    finally:
        copy.unlink()
    answer = re.search(r'<i id="facts">([^<]+)</i>', done.stdout)
    assert answer is not None, done.stderr
    return json.loads(urllib.parse.unquote(answer[1]))


class _Tree(html.parser.HTMLParser):
    """Builds the tree of a page; an end tag that does not match its start tag is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._builder = ET.TreeBuilder()
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.root = self._builder.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self._builder.end(tag)
        else:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self._builder.end(tag)

    def handle_data(self, data: str) -> None:
        if self._open:
            self._builder.data(data)


class Page:
    """The elements of a page."""

    def __init__(self, content: str) -> None:
        self.root = _Tree(content).root

    def all(self, attribute: str) -> list[tuple[str, str]]:
        """Value of an attribute and text, of each element that has the attribute, in the order of the page."""
        return [(each.get(attribute, ""), text_of(each)) for each in self.root.iter() if attribute in each.attrib]

    def texts(self, attribute: str) -> dict[str, str]:
        """Text by value of an attribute; each value may occur once."""
        found = self.all(attribute)
        assert len(dict(found)) == len(found)
        return dict(found)

    def element(self, name: str) -> ET.Element:
        """The one element with this id."""
        (found,) = (each for each in self.root.iter() if each.get("id") == name)
        return found

    def text(self, name: str) -> str:
        """Text of the one element with this id."""
        return text_of(self.element(name))

    def has(self, name: str) -> bool:
        """Whether an element has this id."""
        return any(each.get("id") == name for each in self.root.iter())

    @property
    def rows(self) -> list[list[str]]:
        """Every table row as a list of cell texts."""
        return [[text_of(cell) for cell in row] for row in self.root.iter("tr")]


def text_of(element: ET.Element) -> str:
    """Text of an element and all within it, with single blanks."""
    return " ".join(" ".join(element.itertext()).split())


def numbers(text: str) -> list[str]:
    """Numbers of a text as they are written, percent signs included."""
    return re.findall(r"(?<![\w.])[+−-]?\d+(?:,\d{3})*(?:\.\d+)?%?(?!\w)", text)


def _hash_of(script: ET.Element) -> str:
    return base64.b64encode(hashlib.sha256((script.text or "").encode()).digest()).decode()


def check_structure(page: Page, links: tuple[str, ...] = ("#", "../")) -> None:
    """Headings in order, a caption and scopes for each table, a text for each picture, no external resources.

    A link begins with one of `links`; a script is one that the content security policy names.
    """
    levels = [int(each.tag[1]) for each in page.root.iter() if re.fullmatch(r"h[1-6]", each.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for table in page.root.iter("table"):
        assert text_of(table.find("caption")), ET.tostring(table)
        assert all(cell.get("scope") in ("col", "colgroup", "row", "rowgroup") for cell in table.iter("th"))
    assert all(len(each.get("alt", "")) > 10 for each in page.root.iter("img"))
    assert all(each.get("src", "").startswith("data:image/png;base64,") for each in page.root.iter("img"))
    assert all(each.get("href", "").startswith(links) for each in page.root.iter("a"))
    assert not [each.tag for each in page.root.iter() if each.tag in ("link", "iframe", "object")]
    scripts = [each for each in page.root.iter("script") if each.get("type") != "application/json"]
    (policy,) = (each.get("content", "") for each in page.root.iter("meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert [_hash_of(each) for each in scripts] == re.findall(r"'sha256-([^']+)'", policy)
    names = [each.get("id") for each in page.root.iter() if each.get("id")]
    assert len(names) == len(set(names))
