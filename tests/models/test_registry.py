import dataclasses
import datetime as dt
import json
import re

import pandas as pd
import pytest

from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, registry
from ids_spark.models.artifact import ModelUnusable
from ids_spark.models.registry import Aliases, adopt, model_of_alias, promote, read_aliases, version_of_alias
from tests.support.models import CARD, PREPROCESSOR, VALIDATION_SCORES, WEIGHTS

NAME = CARD.name
V1, V2, V3 = "20260101T000000Z-aa", "20260201T000000Z-bb", "20260301T000000Z-cc"
NOW = dt.datetime(2026, 3, 2, 1, 2, 3, tzinfo=dt.UTC)


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path / "lake"))


def train(lake, *versions, name=NAME):
    for version in versions:
        card = dataclasses.replace(CARD, name=name, version=version)
        artifact.write_model(lake.uri(f"models/{name}/{version}"), card, WEIGHTS, PREPROCESSOR, VALIDATION_SCORES)


def put(lake, version, alias="champion", run_id="r1", now=NOW):
    """Promote and commit, as the job does; returns the aliases as read again."""
    after = promote(lake.uri("models"), NAME, version, alias, run_id, now)
    write_bytes(lake.staged("promote", run_id, registry.aliases_path(NAME)), after.to_json())
    lake.commit("promote", run_id, [registry.aliases_path(NAME)])
    return read_aliases(lake.uri("models"), NAME)


def refusal(call, *arguments):
    with pytest.raises(ModelUnusable) as error:
        call(*arguments)
    return str(error.value)


def holders(lake):
    return tuple(version_of_alias(lake.uri("models"), NAME, alias) for alias in ("champion", "challenger"))


def test_before_any_promotion_the_only_version_is_champion(lake):
    train(lake, V1)
    assert holders(lake) == (V1, None)
    assert read_aliases(lake.uri("models"), NAME) == Aliases()


def test_of_several_versions_none_is_champion_before_a_promotion(lake):
    train(lake, V2, V1)
    assert refusal(version_of_alias, lake.uri("models"), NAME, "champion") == (
        f"model {NAME} has 2 versions and no champion: {V1}, {V2}. Promote one:"
        f" jobs/promote.py --set promote.model={NAME} --set promote.version=VERSION"
    )
    put(lake, V2)
    assert holders(lake) == (V2, None)


def test_a_newly_trained_version_does_not_become_champion(lake):
    train(lake, V1)
    put(lake, "latest")
    train(lake, V2)
    assert holders(lake) == (V1, None)


@pytest.mark.parametrize("name", ["../../outside/models/m", "..", "/etc", "a/b", "", ".", "m\n"])
def test_a_name_that_leads_out_of_the_lake_is_no_model(lake, tmp_path, name):
    train(lake, V1)
    outside = Lake(str(tmp_path / "outside"))
    card = dataclasses.replace(CARD, name=name, version=V1)
    artifact.write_model(outside.uri(f"models/m/{V1}"), card, WEIGHTS, PREPROCESSOR)
    write_bytes(outside.uri("models/m/_aliases.json"), Aliases().to_json())
    for call in (
        lambda: read_aliases(lake.uri("models"), name),
        lambda: version_of_alias(lake.uri("models"), name, "champion"),
        lambda: promote(lake.uri("models"), name, "latest", "champion", "r1", NOW),
    ):
        assert refusal(call) == f"no model {name!r} in {lake.uri('models')}; expected one of {NAME}"
    assert artifact.model_versions(lake.uri("models"), name) == []


@pytest.mark.parametrize("version", ["../../../outside", "..", "/etc", "a/b", "", "v\n"])
@pytest.mark.parametrize("field", ["champion", "version", "previous"])
def test_aliases_of_versions_that_lead_out_of_the_lake_are_refused(lake, field, version):
    train(lake, V1)
    uri = lake.uri(registry.aliases_path(NAME))
    content = json.loads(put(lake, V1).to_json())
    (content if field == "champion" else content["history"][0])[field] = version
    write_bytes(uri, json.dumps(content).encode())
    assert f"{uri} is not a file of aliases" in refusal(read_aliases, lake.uri("models"), NAME)


@pytest.mark.parametrize("field", ["name", "version"])
@pytest.mark.parametrize("text", ["../../../outside", "..", "/etc", "a/b", "", "m\n"])
def test_a_model_with_a_name_that_leads_out_of_the_lake_is_refused(lake, field, text):
    uri = lake.uri(f"models/{NAME}/{V1}")
    artifact.write_model(uri, dataclasses.replace(CARD, **{field: text}), WEIGHTS, PREPROCESSOR, VALIDATION_SCORES)
    assert "expected names of letters, digits" in refusal(artifact.read_model, uri)


def test_a_copy_of_a_model_under_another_name_is_not_used(lake, caplog):
    train(lake, V1)
    train(lake, V1, name="m (copy)")
    assert artifact.choose_models(lake.uri("models"), [], "latest") == [lake.uri(f"models/{NAME}/{V1}")]
    assert "'m (copy)' is not used" in caplog.text


def test_the_first_night_makes_its_champion_explicit_so_that_training_does_not_stop_the_second(lake):
    train(lake, V1)
    train(lake, V2)  # while the night is scored
    adopted = adopt(lake.uri("models"), NAME, V1, "night1", NOW)
    assert (adopted.champion, len(adopted.history)) == (V1, 1)
    write_bytes(lake.uri(registry.aliases_path(NAME)), adopted.to_json())
    assert holders(lake) == (V1, None)
    assert adopt(lake.uri("models"), NAME, V1, "night2", NOW) is None


def test_every_change_stays_in_the_history(lake):
    train(lake, V1, V2)
    put(lake, V1, run_id="r1")
    put(lake, V2, "challenger", "r2")
    found = put(lake, V2, "champion", "r3", NOW + dt.timedelta(days=1))
    assert [(c.alias, c.version, c.previous, c.run_id) for c in found.history] == [
        ("champion", V1, None, "r1"),
        ("challenger", V2, None, "r2"),
        ("champion", V2, V1, "r3"),
        ("challenger", None, V2, "r3"),  # a champion cannot be its own challenger
    ]
    assert holders(lake) == (V2, None)
    sha256 = artifact.read_model(lake.uri(f"models/{NAME}/{V2}")).sha256
    assert [c.sha256 for c in found.history[1:]] == [sha256, sha256, None]
    assert [c.at for c in found.history] == [NOW, NOW, NOW + dt.timedelta(days=1), NOW + dt.timedelta(days=1)]


def test_the_file_is_plain_json(lake, tmp_path):
    train(lake, V1)
    put(lake, V1)
    content = json.loads((tmp_path / "lake" / "models" / NAME / "_aliases.json").read_text())
    assert {key: content[key] for key in ("format", "champion", "challenger")} == {
        "format": 1,
        "champion": V1,
        "challenger": None,
    }
    assert content["history"][0]["at"] == "2026-03-02T01:02:03Z"


def test_previous_rolls_back_and_twice_is_back(lake):
    train(lake, V1, V2)
    put(lake, V1, run_id="r1")
    put(lake, V2, run_id="r2")
    assert put(lake, "previous", run_id="r3").champion == V1
    assert put(lake, "previous", run_id="r4").champion == V2


def test_without_a_previous_champion_the_versions_are_listed(lake):
    train(lake, V1, V2)
    expected = f"no version of model {NAME} was champion before the present one; found versions {V1}, {V2}. Promote one"
    assert refusal(promote, lake.uri("models"), NAME, "previous", "champion", "r", NOW).startswith(expected)
    put(lake, V2)
    assert refusal(promote, lake.uri("models"), NAME, "previous", "champion", "r", NOW).startswith(expected)


def test_the_same_promotion_again_changes_nothing(lake):
    train(lake, V1, V2)
    once = put(lake, V2)
    assert promote(lake.uri("models"), NAME, V2, "champion", "r2", NOW) == once
    assert promote(lake.uri("models"), NAME, "latest", "champion", "r2", NOW) == once


@pytest.mark.parametrize("promoted", [True, False])
def test_a_champion_is_not_its_own_challenger(lake, promoted):
    train(lake, V1)
    if promoted:  # else it is champion as the only version
        put(lake, V1)
    assert refusal(promote, lake.uri("models"), NAME, V1, "challenger", "r", NOW) == (
        f"model {NAME} version {V1} is the champion; expected another version as challenger"
    )


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("lstm-2-paper", "latest", "no model 'lstm-2-paper' in "),
        (NAME, "20990101T000000Z-zz", f"model {NAME} has no version '20990101T000000Z-zz'; expected one of {V1}"),
        ("../models/" + NAME, "latest", "no model '../models/"),
        (NAME, f"../{NAME}/{V1}", "has no version '../"),
    ],
)
def test_an_unknown_model_or_version_is_named(lake, name, version, message):
    train(lake, V1)
    assert message in refusal(promote, lake.uri("models"), name, version, "champion", "r", NOW)


def test_a_model_without_versions_has_no_champion(lake):
    assert "holds no model; run jobs/train.py" in refusal(version_of_alias, lake.uri("models"), NAME, "champion")
    train(lake, V1, name="dnn-2-paper")
    assert f"no model {NAME!r} in " in refusal(version_of_alias, lake.uri("models"), NAME, "challenger")


def test_a_changed_byte_is_not_promoted(lake, tmp_path):
    train(lake, V1)
    weights = tmp_path / "lake" / "models" / NAME / V1 / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "weights.npz was changed after training" in refusal(
        promote, lake.uri("models"), NAME, V1, "champion", "r", NOW
    )


def test_a_model_that_cannot_score_nights_is_not_promoted(lake):
    artifact.write_model(lake.uri(f"models/{NAME}/{V1}"), dataclasses.replace(CARD, version=V1), WEIGHTS, PREPROCESSOR)
    assert refusal(promote, lake.uri("models"), NAME, V1, "champion", "r", NOW) == (
        f"{lake.uri('models')}/{NAME}/{V1} has no validation scores, which scoring of nights needs; retrain with this"
        " version"
    )


def test_a_model_under_another_models_name_is_not_promoted(lake, tmp_path):
    train(lake, V1)
    (tmp_path / "lake" / "models" / NAME / V1).rename(tmp_path / "lake" / "models" / NAME / V2)
    text = refusal(promote, lake.uri("models"), NAME, V2, "champion", "r", NOW)
    assert text == (
        f"{lake.uri('models')}/{NAME}/{V2} holds model {NAME} version {V1}; expected {NAME} version"
        f" {V2}; restore the directory or retrain"
    )


def test_the_model_of_an_alias_is_the_one_that_was_promoted(lake):
    train(lake, V1)
    assert model_of_alias(lake.uri("models"), NAME, "champion").card.version == V1  # before any promotion
    put(lake, V1)
    assert model_of_alias(lake.uri("models"), NAME, "champion").card.version == V1
    assert model_of_alias(lake.uri("models"), NAME, "challenger") is None
    other = dataclasses.replace(CARD, version=V1, training={"seconds": 9.0})
    artifact.write_model(
        lake.uri(f"models/{NAME}/{V1}"), other, WEIGHTS, PREPROCESSOR, VALIDATION_SCORES
    )  # complete, but another model
    text = refusal(model_of_alias, lake.uri("models"), NAME, "champion")
    assert re.search(
        f"{V1} was changed after it became champion: the SHA-256 of its manifest is .{{16}}…, expected ", text
    )


def test_a_champion_whose_directory_is_gone_is_refused_not_replaced(lake, tmp_path):
    train(lake, V1, V2)
    put(lake, V1)
    (tmp_path / "lake" / "models" / NAME / V1 / "manifest.json").unlink()
    text = refusal(version_of_alias, lake.uri("models"), NAME, "champion")
    assert text.startswith(
        f"champion of model {NAME} is version {V1}, which is not in {lake.uri('models')}/{NAME}; found"
    )
    assert text.endswith(f"found {V2}. Restore it, or promote another: jobs/promote.py --set promote.model={NAME}"
                         " --set promote.version=VERSION")  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "content: Expecting value"),
        ("[]", "content: Input should be an object"),
        ('{"format": 2}', "format: Input should be 1"),
        ('{"champions": "x"}', "champions: Extra inputs are not permitted"),
        (f'{{"champion": "{V1}"}}', f"content: champion is {V1}, but the history ends with None"),
        ('{"history": [{"alias": "king"}]}', "history.0.alias: Input should be 'champion' or 'challenger'"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_refused(lake, content, message):
    train(lake, V1)
    uri = f"{lake.uri('models')}/{NAME}/_aliases.json"
    write_bytes(uri, content.encode())
    text = refusal(version_of_alias, lake.uri("models"), NAME, "champion")
    assert text.startswith(f"{uri} is not a file of aliases ({message}")
    assert f"restore it, or remove it and promote again: jobs/promote.py --set promote.model={NAME}" in text


def test_a_model_directory_lists_its_versions_alone(lake):
    train(lake, V1)
    put(lake, V1)
    assert artifact.model_versions(lake.uri("models"), NAME) == [V1]
    assert artifact.model_names(lake.uri("models")) == [NAME]


def audits(lake):
    rows = pd.read_parquet(lake.uri("audit").removeprefix("file://"))
    return rows.sort_values("run_id", kind="stable").to_dict("records")


def test_the_job_promotes_and_rolls_back_and_its_audit_names_both_versions(run_job, lake):
    train(lake, V1, V2)
    given = {"promote__model": NAME, "promote__version": V1}
    assert run_job("promote", **given) == 0
    assert run_job("promote", **given | {"promote__version": "latest"}) == 0
    assert holders(lake) == (V2, None)
    assert run_job("promote", **given | {"promote__version": "previous"}) == 0
    assert run_job("promote", **given) == 0  # once more
    assert run_job("promote", **given | {"promote__version": V2, "promote__alias": "challenger"}) == 0
    assert holders(lake) == (V1, V2)
    notes = sorted(note for row in audits(lake) for note in row["notes"])
    assert notes == sorted(
        [
            f"{NAME}: champion is {V1}, was none",
            f"{NAME}: champion is {V2}, was {V1}",
            f"{NAME}: champion is {V1}, was {V2}",
            f"{NAME}: {V1} is already the champion; nothing changed",
            f"{NAME}: challenger is {V2}, was none",
            f"{NAME}: there was no champion to compare with",
            *[f"{NAME}: recall was not compared: there are no flows in {lake.uri('flows/split=test')}"] * 2,
        ]
    )
    assert {row["job"] for row in audits(lake)} == {"promote"}
    assert (
        sorted(model for row in audits(lake) for model in row["models"]) == [f"{NAME}/{V1}"] * 3 + [f"{NAME}/{V2}"] * 2
    )
    history = read_aliases(lake.uri("models"), NAME).history
    assert {change.run_id for change in history} < {row["run_id"] for row in audits(lake)}


def test_the_job_refuses_a_broken_model_and_leaves_the_champion(run_job, lake, tmp_path, caplog):
    train(lake, V1, V2)
    assert run_job("promote", promote__model=NAME, promote__version=V1) == 0
    (tmp_path / "lake" / "models" / NAME / V2 / "model.json").write_text("{}")
    assert run_job("promote", promote__model=NAME, promote__version=V2) == 2
    assert "model.json was changed after training" in caplog.text
    assert holders(lake) == (V1, None)
    assert sorted(row["status"] for row in audits(lake)) == ["done", "refused"]
