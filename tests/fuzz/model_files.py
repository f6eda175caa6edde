"""Stored models and checkpoints, changed with and without their hashes."""

import dataclasses
import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ids_spark.models import artifact
from ids_spark.train import checkpoint
from tests.fuzz import documents, nights, raw
from tests.fuzz.case import Base, Case, start
from tests.fuzz.draw import Draw
from tests.support import trees
from tests.support.nights import MODEL


def make_model(draw: Draw, base: Base, folder: Path) -> Case:
    """Return a promotion of a second version of the model, or of its blend with boosted trees, which was changed.

    If it is accepted, it scores a night.
    """
    case = start(folder, base.night)
    models = case.lake / "models" / MODEL
    [first] = [path for path in models.iterdir() if path.is_dir()]
    version = models / "20260302T010203Z-0a1b2c3d"
    if draw.chance(0.4):
        draw.note("a blend")
        _write_blend(first, version)
    else:
        shutil.copytree(first, version)
        card = json.loads((version / "model.json").read_text())
        card["version"] = version.name
        _seal(version, "model.json", json.dumps(card).encode())
    for _ in range(draw.times(2)):
        _change(draw, version)
    case.job = "promote"
    case.settings = [f"promote.model={MODEL}", f"promote.version={version.name}"]
    case.after = ("score", nights.write_valid(draw, base, case))
    return case


def make_checkpoint(draw: Draw, base: Base, folder: Path) -> Case:
    """Return the reading of a checkpoint that was changed."""
    case = start(folder, None)
    file = case.input / "model.npz"
    with np.load(base.checkpoint) as packed:
        arrays = {name: packed[name] for name in packed.files}
    state = json.loads(arrays["state"].tobytes())
    own = state["fingerprint"]
    if draw.chance(0.6):
        arrays["state"] = np.frombuffer(documents.mutated(draw, state, "json"), dtype=np.uint8)
    content = _packed(draw, arrays)
    if draw.chance(0.3):
        content = raw.mutate(draw, content)
    elif draw.chance(0.05):
        content = raw.another_kind(draw, content)
    file.write_bytes(content)

    def read() -> None:
        found = checkpoint.read_checkpoint(str(file), own)
        if found is None:
            return
        for values in (found.weights, found.optimizer, found.best):
            if not all(np.isfinite(value).all() for value in values):
                raise AssertionError("a checkpoint with an infinite weight was accepted")
        if [w.shape for w in found.weights] != [w.shape for w in found.best]:
            raise AssertionError("a checkpoint with weights of two shapes was accepted")
        last = found.history[found.best_epoch - 1]["validation_loss"] if found.best_epoch else 0.0
        if not isinstance(last + found.best_cost + found.seconds, float):
            raise AssertionError("a checkpoint with facts of another type was accepted")

    case.read = read
    return case


def _write_blend(first: Path, version: Path) -> None:
    """Write a version that is a blend of the network of the first one with trees."""
    model = artifact.read_model(str(first))
    card = dataclasses.replace(trees.blend_card(model.card), name=model.card.name, version=version.name)
    parts = model.weights, model.preprocessor, model.validation_scores, model.novelty
    artifact.write_model(str(version), card, *parts, trees.booster_of(card))


def _seal(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a model and its hash, as somebody who can write the lake may."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _change(draw: Draw, folder: Path) -> None:
    name = draw.pick(
        (
            "model.json",
            "model.json",
            "preprocessor.json",
            "preprocessor.json",
            "validation_scores.json",
            "weights.npz",
            "novelty.npz",
            "manifest.json",
            *("booster.json",) * (4 if (folder / "booster.json").exists() else 0),
        )
    )
    file, sealed = folder / name, draw.chance(0.85)
    if not file.exists():
        return
    if draw.chance(0.04):
        draw.note(f"{name} removed")
        file.unlink()
        return
    draw.note(f"{name}{'' if sealed else ', hash as before'}")
    content = file.read_bytes()
    if name.endswith(".npz") and draw.chance(0.7):
        try:
            with np.load(file) as packed:
                content = _packed(draw, {key: packed[key] for key in packed.files})
        except (ValueError, OSError, EOFError, zipfile.BadZipFile):  # broken by a change before
            content = raw.mutate(draw, content)
    elif name.endswith(".json") and draw.chance(0.9):
        try:
            content = documents.mutated(draw, json.loads(content), "json")
        except (ValueError, RecursionError):
            content = raw.mutate(draw, content)
    else:
        content = raw.mutate(draw, content)
    if name == "manifest.json" or not sealed:
        file.write_bytes(content)
        return
    try:
        if name == "preprocessor.json":
            _reseal_preprocessor(folder, content)
        _seal(folder, name, content)
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        file.write_bytes(content)


def _reseal_preprocessor(folder: Path, content: bytes) -> None:
    card = json.loads((folder / "model.json").read_text())
    canonical = json.dumps(json.loads(content), indent=2, allow_nan=False) + "\n"
    card["preprocessor_sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    _seal(folder, "model.json", json.dumps(card).encode())


def _packed(draw: Draw, arrays: dict[str, Any]) -> bytes:
    """Return arrays as an npz file, some of them changed."""
    if draw.chance(0.6):
        key = draw.pick([key for key in arrays if key != "state"])
        kind = draw.pick(
            ("type", "shape", "remove", "nan", "rename", "scalar", "more", "object", "huge", "text", "wide", "empty")
        )
        draw.note(f"array {key}: {kind}")
        value = arrays[key]
        changed: dict[str, Any] = {
            "type": value.astype(draw.pick(("float64", "int8", "complex64", "bool", "float16", ">f4"))),
            "shape": value.reshape(-1),
            "nan": value * np.float32("nan"),
            "scalar": np.float32(1),
            "huge": np.full(value.shape, 3e38, np.float32),
            "text": np.array(["a"]),
            "wide": np.zeros((3, 4000), np.float32),
            "empty": value.reshape(-1)[:0],
        }
        if kind == "remove":
            del arrays[key]
        elif kind == "rename":
            arrays[draw.pick(("w999", "x", "../w000", "b"))] = arrays.pop(key)
        elif kind == "more":
            arrays["w998"] = np.zeros(3, np.float32)
        elif kind == "object":
            arrays[key] = np.array([{}], dtype=object)
        else:
            arrays[key] = changed[kind]
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    return sink.getvalue()
