import dataclasses
import hashlib
import io
import json
import re

import numpy as np
import pytest

from ids_spark.base import json_text
from ids_spark.base.errors import InputError
from ids_spark.config.train import ModelConfig
from ids_spark.models import inference, novelty
from ids_spark.models.artifact import (
    ModelUnusable,
    choose_models,
    model_name,
    model_names,
    model_versions,
    read_model,
    title_of,
    write_model,
)
from tests.support.models import CARD, DERIVED, NOVELTY, PREPROCESSOR, VALIDATION_SCORES, WEIGHTS, WITH_DERIVED

FILES = ["model.json", "weights.npz", "preprocessor.json", "validation_scores.json", "novelty.npz"]


@pytest.fixture
def stored(tmp_path):
    write_model(str(tmp_path / "m"), CARD, WEIGHTS, PREPROCESSOR, VALIDATION_SCORES, NOVELTY)
    return tmp_path / "m"


def refusal(folder):
    with pytest.raises(ModelUnusable) as error:
        read_model(str(folder))
    return str(error.value)


def reseal(folder, name, content):
    """Replace a file and its hash in the manifest, as somebody with write access could."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_model_is_read_as_written(stored):
    model = read_model(str(stored))
    assert model.card == CARD
    assert model.card.class_names == ("Benign", "DDoS", "DoS", "MQTT", "Recon", "Spoofing")
    assert model.preprocessor == PREPROCESSOR
    assert model.validation_scores == VALIDATION_SCORES
    assert model.novelty is not None
    assert model.novelty.to_bytes() == NOVELTY.to_bytes()
    assert model.sha256 == hashlib.sha256((stored / "manifest.json").read_bytes()).hexdigest()
    assert len(model.weights) == len(WEIGHTS)
    for found, written in zip(model.weights, WEIGHTS, strict=True):
        np.testing.assert_array_equal(found, written)
        assert (found.dtype, found.shape) == (written.dtype, written.shape)


def test_the_card_keeps_what_it_says_of_local_rows_and_is_as_before_without_any(tmp_path, stored):
    assert "local" not in json.loads((stored / "model.json").read_text())
    card = dataclasses.replace(CARD, local={"train_rows": 7, "held_out_dates": ["2026-11-03"], "weight": 0.7})
    write_model(str(tmp_path / "local"), card, WEIGHTS, PREPROCESSOR)
    assert read_model(str(tmp_path / "local")).card == card
    content = json.loads((stored / "model.json").read_text()) | {"local": [1]}
    reseal(stored, "model.json", json.dumps(content).encode())
    assert "cannot be parsed" in refusal(stored)


def test_the_manifest_holds_the_sha256_of_every_file(stored):
    manifest = json.loads((stored / "manifest.json").read_text())
    assert manifest == {name: hashlib.sha256((stored / name).read_bytes()).hexdigest() for name in FILES}
    assert sorted(p.name for p in stored.iterdir()) == sorted([*FILES, "manifest.json"])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_one_changed_byte_is_refused_with_the_file_named(stored, name, place):
    content = bytearray((stored / name).read_bytes())
    content[int(place * len(content)) if place > 0 else place] ^= 1
    (stored / name).write_bytes(content)
    text = refusal(stored)
    assert text.startswith(f"{stored}/{name} was changed after training: its SHA-256 is ")
    assert hashlib.sha256(content).hexdigest()[:16] in text
    assert text.endswith("; restore the directory or retrain")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(stored, name):
    (stored / name).unlink()
    assert refusal(stored) == f"{stored}/{name} is missing; restore the directory or retrain"


def test_a_preprocessor_of_another_model_is_refused_even_where_the_manifest_names_it(stored):
    other = dataclasses.replace(PREPROCESSOR, rows=PREPROCESSOR.rows + 1)
    reseal(stored, "preprocessor.json", other.to_json().encode())
    text = refusal(stored)
    assert text.startswith(f"{stored}/preprocessor.json is of another model: its SHA-256 is {other.sha256()[:16]}…")
    assert f"expected {PREPROCESSOR.sha256()[:16]}…" in text


def test_a_model_without_validation_scores_is_read_without(tmp_path):
    write_model(str(tmp_path / "m"), CARD, WEIGHTS, PREPROCESSOR)
    assert read_model(str(tmp_path / "m")).validation_scores is None


def test_a_model_without_a_detector_of_unknown_attacks_is_read_without(tmp_path):
    write_model(str(tmp_path / "m"), CARD, WEIGHTS, PREPROCESSOR, VALIDATION_SCORES)
    assert read_model(str(tmp_path / "m")).novelty is None


def test_without_a_manifest_a_model_is_not_complete(stored):
    (stored / "manifest.json").unlink()
    expected = "holds no complete model (manifest.json is missing); run jobs/train.py"
    assert refusal(stored) == f"{stored} {expected}"
    assert refusal(stored.parent / "absent") == f"{stored.parent}/absent {expected}"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model.json": "00"}', "null", "\x00"])
def test_a_manifest_that_is_none_is_refused(stored, content):
    (stored / "manifest.json").write_text(content)
    text = refusal(stored)
    assert text.startswith(f"{stored}/manifest.json is not a manifest (")
    assert text.endswith("; restore it or retrain")


def test_pickled_weights_are_never_loaded(stored):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was executed",)

    packed = io.BytesIO()
    np.savez(packed, w000=np.array([Trap()], dtype=object))
    reseal(stored, "weights.npz", packed.getvalue())
    text = refusal(stored)
    assert "an array of Python objects, which are never loaded" in text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x80\x04N."])
def test_weights_that_are_no_arrays_are_refused(stored, content):
    reseal(stored, "weights.npz", content)
    assert f"{stored}: cannot be parsed (" in refusal(stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=1), "found model format 1; expected 3; retrain"),
        (lambda c: c.pop("architecture"), "cannot be parsed (TypeError("),
        (lambda c: c.update(code="x"), "cannot be parsed (TypeError("),
        (lambda c: c.pop("features"), "cannot be parsed (KeyError('features'))"),
        (lambda c: c.update(features=["Rate", "IAT", "Speed"]), "its preprocessor lacks features IAT, Speed; restore"),
        (lambda c: c.update(features=[]), "its features are none"),
        (lambda c: c.update(features=["Rate", "Rate"]), "one is listed twice"),
        (lambda c: c.update(features=3), "cannot be parsed (TypeError("),
        (lambda c: c.update(classes="6"), "classes"),
        (lambda c: c.update(classes=7), "classes"),
        (lambda c: c.update(name=None), "name"),
        (lambda c: c.update(training=[]), "training"),
        (lambda c: c.update(hyperparameters={"units": -1}), "units"),
        (lambda c: c.update(hyperparameters={"dense": [1e30]}), "dense"),
        (lambda c: c.update(hyperparameters=[]), "hyperparameters"),
        (lambda c: c.update(hyperparameters={"dense": ["x"] * 30_000}), "bytes of hyperparameters and names; expected"),
        (lambda c: c.update(features=[1] * 50_000), "bytes of hyperparameters and names; expected"),
        (lambda c: c.update(class_names=["Benign"]), "class names ['Benign'] are not those of 6 classes"),
        (lambda c: c.update(format=[]), "found model format []"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(stored, change, message):
    content = json.loads((stored / "model.json").read_text())
    change(content)
    reseal(stored, "model.json", json.dumps(content).encode())
    assert message in refusal(stored)


@pytest.mark.parametrize("name", ["model.json", "preprocessor.json", "validation_scores.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"null", b"3", b'"x"', b"\x00"])
def test_json_of_another_kind_is_refused(stored, name, content):
    reseal(stored, name, content)
    with pytest.raises(InputError, match=re.escape(str(stored))) as error:
        read_model(str(stored))
    assert len(str(error.value)) < 1_000


@pytest.mark.parametrize("value", [np.float32("nan"), np.float32("inf"), 1j, "text", True])
def test_weights_that_are_not_real_finite_numbers_are_refused(stored, value):
    packed = io.BytesIO()
    np.savez(packed, w000=np.full((2, 3), value), w001=np.zeros(3))
    reseal(stored, "weights.npz", packed.getvalue())
    assert "w000 does not hold real, finite numbers" in refusal(stored)


def test_a_model_reads_the_raw_features_of_its_derived_ones(tmp_path):
    write_model(str(tmp_path / "m"), dataclasses.replace(CARD, features=DERIVED), WEIGHTS, WITH_DERIVED)
    assert read_model(str(tmp_path / "m")).card.source_features == ("Rate", "Header_Length", "AVG")


def test_weights_that_do_not_fit_the_architecture_are_refused(stored):
    model, rows = read_model(str(stored)), np.zeros((1, 2), np.float32)
    for dense, reason in (([10**9], r"expected \(2, 1000000000\)"), ([9], r"expected \(2, 9\)"), ([], "expected")):
        card = dataclasses.replace(model.card, hyperparameters=ModelConfig(dense=dense).model_dump(mode="json"))
        with pytest.raises(ModelUnusable, match=f"do not fit its architecture .*{reason}"):
            inference.forward(dataclasses.replace(model, card=card, sha256=reason), rows, 8)


@pytest.mark.parametrize(("features", "classes"), [(3, 6), (2, 19)])
def test_validation_scores_of_another_model_are_refused(stored, features, classes):
    scores = dataclasses.replace(VALIDATION_SCORES, class_mix=(1,) * classes, baseline=(0.5,) * features)
    reseal(stored, "validation_scores.json", scores.to_json().encode())
    assert f"its validation scores are of {classes} classes and {features} features" in refusal(stored)


def test_a_detector_of_another_model_is_refused(stored):
    other = novelty.fit(np.random.default_rng(1).normal(size=(90, 3)).astype(np.float32))
    reseal(stored, "novelty.npz", other.to_bytes())
    assert "its detector of unknown attacks is of 3 features; expected 2" in refusal(stored)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x80\x04N.", b"{}"])
def test_a_detector_that_is_no_arrays_is_refused(stored, content):
    reseal(stored, "novelty.npz", content)
    assert f"{stored}: cannot be parsed (" in refusal(stored)


def test_a_pickled_detector_is_never_loaded(stored):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was executed",)

    packed = io.BytesIO()
    np.savez(packed, centre=np.array([Trap()], dtype=object))
    reseal(stored, "novelty.npz", packed.getvalue())
    assert "an array of Python objects, which are never loaded" in refusal(stored)


@pytest.mark.parametrize("name", ["model.json", "preprocessor.json"])
def test_json_that_is_not_text_is_refused(stored, name):
    reseal(stored, name, b"\xff\xfe{}")
    with pytest.raises(InputError, match=re.escape(str(stored))):
        read_model(str(stored))


@pytest.fixture
def models(tmp_path):
    for name, version in [("dnn-2-paper", "v2"), ("dnn-2-paper", "v1"), ("gru_dnn-19-paper", "v1")]:
        card = dataclasses.replace(CARD, name=name, version=version)
        write_model(str(tmp_path / "models" / name / version), card, WEIGHTS[:1], PREPROCESSOR)
    unfinished = tmp_path / "models" / "dnn-2-paper" / "v3"
    unfinished.mkdir()
    (unfinished / "model.json").write_text("{}")
    (tmp_path / "models" / "dnn-6-paper" / "v1").mkdir(parents=True)
    return str(tmp_path / "models")


def test_only_complete_versions_are_known(models):
    assert model_names(models) == ["dnn-2-paper", "gru_dnn-19-paper"]
    assert model_versions(models, "dnn-2-paper") == ["v1", "v2"]
    assert model_versions(models, "dnn-6-paper") == model_versions(models, "absent") == []


def test_models_are_chosen_by_name_and_version(models):
    assert choose_models(models, [], "latest") == [f"{models}/dnn-2-paper/v2", f"{models}/gru_dnn-19-paper/v1"]
    assert choose_models(models, ["dnn-2-paper"], "v1") == [f"{models}/dnn-2-paper/v1"]
    assert read_model(choose_models(models, ["dnn-2-paper"], "latest")[0]).card.version == "v2"


@pytest.mark.parametrize(
    ("wanted", "version", "message"),
    [
        (["dnn-19-paper"], "latest", "no model 'dnn-19-paper' in {}; expected one of dnn-2-paper, gru_dnn-19-paper"),
        (["dnn-6-paper"], "latest", "no model 'dnn-6-paper' in {}; expected one of dnn-2-paper, gru_dnn-19-paper"),
        (["dnn-2-paper"], "v3", "model dnn-2-paper has no version 'v3'; expected one of v1, v2"),
        ([], "v2", "model gru_dnn-19-paper has no version 'v2'; expected one of v1"),
    ],
)
def test_a_model_that_is_not_there_is_refused_with_what_is(models, wanted, version, message):
    with pytest.raises(ModelUnusable) as error:
        choose_models(models, wanted, version)
    assert str(error.value) == message.format(models)


def test_a_lake_without_models_names_the_job_to_run(tmp_path):
    with pytest.raises(ModelUnusable) as error:
        choose_models(str(tmp_path), ["dnn-2-paper"], "latest")
    assert str(error.value) == f"{tmp_path} holds no model; run jobs/train.py on this lake first"


def test_a_model_is_named_by_architecture_variant_classes_and_profile():
    assert model_name(title_of("gru_dnn", ""), 19, "operational") == "gru_dnn-19-operational"
    assert model_name(title_of("gru_dnn", "best"), 6, "paper") == "gru_dnn-best-6-paper"


@pytest.mark.parametrize("name", ["manifest.json", "model.json"])
def test_a_file_that_is_too_large_is_not_read(stored, name):
    with (stored / name).open("ab") as stream:
        stream.truncate(json_text.MOST_BYTES + 1)
    assert f"{stored}/{name}: found {json_text.MOST_BYTES + 1:,} bytes; expected at most" in refusal(stored)
