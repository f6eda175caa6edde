"""Configurations, policies and other files of JSON or YAML, mutated by place and as text."""

import copy
import itertools
import json
from pathlib import Path
from typing import Any, Final

import yaml

from tests.fuzz import cells, nights, raw
from tests.fuzz.case import Base, Case, start
from tests.fuzz.draw import Draw
from tests.support.flows import ROOT

YAML_TEXTS: Final = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefgh")),
    "[" * 3000, "[" * 3000 + "]" * 3000, "{a: " * 3000, "- " * 2000 + "a",
    "a: !!python/object/apply:os.system [id]", "!!binary 'x'",
    "? [a, b]\n: c\n", "a: !!timestamp 2026-13-45", "&a [*a]\n", "a: &x\n  b: *x\n", "<<: {a: 1}\n", "<<: [1]\n",
    "--- a\n--- b\n",
    "%YAML 9.9\n---\na: 1\n", "a: 1:30:00\n", "a: 0o17\nb: 017\nc: 1_0\nd: .inf\n", "a: |2\n   x\n  y\n",
    "? a\n? b\n", "!!set {a, b}\n",
    "!!omap [a: 1]\n", "a: \t1\n", "\ta: 1\n", "a: 'x\n", "@x\n", "\x00", "\ufeffa: 1\n", "a: " + "9" * 5000 + "\n",
    "=\n", "~: 1\n",
    "train: {epochs: 1, epochs: 2}\n", "1: 2\n2.5: x\nnull: y\ntrue: z\n", "purge: null\n", "purge: [1]\n", "[]\n",
    "x\n", "lake\n",
    "2026-03-01: a\n", "[a]: b\n", "{[a]: b}\n", "{{a: b}: c}\n", "!!float x\n", "!!int 1.5\n", "!!null x\n",
    "!<!> x\n", "!x y\n",
)  # fmt: skip
KEYS: Final = ("", "x", "entries", "__class__", "\x00", "reason", "0", "y", "lake", "seed", "\u202e")
ALLOW_LIST: Final[list[dict[str, Any]]] = [
    {
        "reason": "Weekly scan",
        "owner": "Network operations",
        "expires": "2026-03-05",
        "where": {"src_ip": ["192.0.2.10"], "device_id": "infusion-pump-03"},
        "category": "Recon",
        "from": "22:00",
        "until": "02:00",
    },
    {
        "reason": "Restart",
        "owner": "Medical technology",
        "expires": "2026-03-06",
        "where": {"device_id": ["infusion-pump-04", "monitor-icu-01"]},
        "class_name": ["MQTT-DoS-Connect_Flood"],
    },
]


def make_config(draw: Draw, base: Base, folder: Path) -> Case:
    """Return a purge with a mutated configuration file, or with mutated settings."""
    case = start(folder, base.flows)
    content = yaml.safe_load(
        (ROOT / "conf" / draw.pick(("small.yaml", "best.yaml", "large.yaml", "paper.yaml"))).read_text()
    )
    content |= {
        "purge": {"older_than_days": 90, "today": "2026-03-01"},
        "score": {"pass_through": ["flow_id", "event_time"], "columns": ["levels"], "batch_rows": 100},
        "alerts": {"most_lines": 50, "window_minutes": 60},
        "ingest": {"max_rejected_share": 0.1, "ignored_columns": ["a"]},
    }
    file = case.input / "config.yaml"
    file.write_bytes(mutated(draw, content, "yaml"))
    case.job, case.settings = "purge", []
    case.config = str(file)
    for _ in range(draw.rng.choice((0, 0, 1, 2))):
        key = draw.pick(
            (
                "purge.older_than_days",
                "purge",
                "purge.today",
                "seed",
                "score.date",
                "x.y",
                "train.dnn.dense",
                "",
                "lake.x",
                "a..b",
            )
        )
        value = draw.pick((*map(str, cells.ANY[:28]), *YAML_TEXTS)).replace("\x00", "")
        draw.note(f"--set {key}={value[:40]!r}")
        case.settings.append(draw.pick((f"{key}={value}", f"{key}={value}", key)))
    return case


def make_severity(draw: Draw, base: Base, folder: Path) -> Case:
    """Return the scoring of a valid night with a mutated severity policy."""
    case = start(folder, base.night)
    content = yaml.safe_load((ROOT / "conf/severity.yaml").read_text())
    return _scored_with(draw, base, case, "alerts.severity_policy", content)


def make_allow_list(draw: Draw, base: Base, folder: Path) -> Case:
    """Return the scoring of a valid night with a mutated allow-list."""
    return _scored_with(draw, base, start(folder, base.night), "alerts.allow_list", ALLOW_LIST)


def _scored_with(draw: Draw, base: Base, case: Case, setting: str, content: Any) -> Case:
    case.settings = nights.write_valid(draw, base, case)
    file = case.input / "policy.yaml"
    if draw.chance(0.03):
        draw.note("a folder in place of the policy")
        file.mkdir()
    elif draw.chance(0.97):
        file.write_bytes(mutated(draw, content, "yaml"))
    case.job, case.table = "score", "nights"
    case.settings.append(f"{setting}={file}")
    return case


def mutated(draw: Draw, content: Any, kind: str) -> bytes:
    """Return a document as text after mutations by place, as text and as bytes.

    Args:
        draw: Chooses.
        content: The valid content.
        kind: `yaml` or `json`.
    """
    if draw.chance(0.1) and kind == "yaml":
        text = draw.pick(YAML_TEXTS)
        draw.note(f"yaml: {text[:40]!r}")
        return text.encode("utf-8", "surrogateescape")
    content = copy.deepcopy(content)
    for _ in range(draw.times(3)):
        content = mutated_tree(draw, content)
    if kind == "json":
        found = json.dumps(content, indent=2).encode()
        if draw.chance(0.05):
            draw.note("json: deep")
            found = b"[" * 100_000
        if draw.chance(0.05) and isinstance(content, dict) and content:
            key = draw.pick(list(content))
            draw.note(f"json: key twice {key[:20]!r}")
            found = found.rstrip()[:-1] + f', "{key}": null}}'.encode("utf-8", "surrogateescape")
    else:
        try:
            found = yaml.safe_dump(content, allow_unicode=draw.chance(0.5), sort_keys=False).encode(
                "utf-8", "surrogateescape"
            )
        except yaml.YAMLError:
            found = json.dumps(content).encode()
        if draw.chance(0.06):
            draw.note("yaml: more text")
            found += draw.pick(YAML_TEXTS).encode()
    if draw.chance(0.15):
        found = raw.mutate(draw, found)
    elif draw.chance(0.04):
        found = raw.another_kind(draw, found)
    return found


def mutated_tree(draw: Draw, content: Any) -> Any:
    """Return the content with one place replaced, removed, renamed, repeated or added."""
    places = list(_places(content, ()))
    place = draw.pick(places)
    kind = draw.pick(("replace", "replace", "replace", "remove", "rename", "add", "nest", "number"))
    draw.note(f"document: {kind} at {'.'.join(map(str, place))[:60] or 'the root'}")
    value = copy.deepcopy(draw.pick(cells.ANY))
    if not place:
        return value if kind == "replace" and draw.chance(0.4) else content
    parent: Any = content
    for part in place[:-1]:
        parent = parent[part]
    last = place[-1]
    if kind == "remove":
        del parent[last]
    elif kind == "rename" and isinstance(parent, dict):
        parent[draw.pick((*KEYS, str(last).upper(), f"{last} ", str(last)[:-1]))] = parent.pop(last)
    elif kind == "add" and isinstance(parent, dict):
        parent[draw.pick(KEYS)] = value
    elif kind == "add":
        parent.append(value)
    elif kind == "nest":
        parent[last] = draw.pick(([parent[last]], {"x": parent[last]}, str(parent[last])))
    elif kind == "number" and isinstance(parent[last], int | float) and not isinstance(parent[last], bool):
        parent[last] = draw.pick(
            (0, -1, parent[last] * 10**6, 10**30, 0.5, -parent[last], 2**31, 2**63, 1e308, parent[last] + 1)
        )
    else:
        parent[last] = value
    return content


def _places(content: Any, at: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Return the places of a document; of a long list only the first and the last three."""
    found = [at]
    if isinstance(content, dict):
        for key, value in content.items():
            found += _places(value, (*at, key))
    elif isinstance(content, list):
        for i in dict.fromkeys([*range(min(3, len(content))), *range(max(0, len(content) - 3), len(content))]):
            found += _places(content[i], (*at, i))
    return found
