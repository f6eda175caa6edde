"""Signed models: whoever can write the lake but has no key cannot change what scores nights."""

import copyreg
import dataclasses
import datetime as dt
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import jobs.promote
import jobs.score
import jobs.verify
from ids_spark.base.errors import InputError
from ids_spark.config.loader import ConfigError, load
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, registry, signatures
from ids_spark.models.artifact import ModelUnusable, read_model
from ids_spark.models.signatures import SignKeyUnusable, TrustedKeyUnusable, load_sign_key, open_trust
from ids_spark.runtime import job
from ids_spark.score import night_context
from ids_spark.score.night_context import ScoringContext
from tests.support.keys import KeyPair, key_pair
from tests.support.models import CARD, PREPROCESSOR, VALIDATION_SCORES, WEIGHTS

NAME = CARD.name
OTHER = "dnn-2-paper"
V1, V2 = "20260101T000000Z-aa", "20260201T000000Z-bb"
NIGHT = ("score.flow_logs=/nowhere", "score.date=2026-03-01", f"score.models=[{NAME}]", "score.pseudonymise=[]")
Log = pytest.LogCaptureFixture


class Site:
    """A lake with signed models, and the keys of the site outside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lake = folder, Lake(str(folder / "lake"))
        self.keys, self.others = key_pair(folder / "keys"), key_pair(folder / "attacker")

    def train(self, version: str, name: str = NAME, keys: KeyPair | None = None) -> None:
        """Write a model as a training run that signs, or does not."""
        uri = self.lake.uri(f"models/{name}/{version}")
        card = dataclasses.replace(CARD, name=name, version=version)
        sha256 = artifact.write_model(uri, card, WEIGHTS, PREPROCESSOR, VALIDATION_SCORES)
        if keys is not None:
            signatures.sign_model(uri, keys.sign_key, name, version, sha256)

    def run(self, module: Any, *settings: str) -> int:
        arguments = [part for each in (f"lake={self.folder}/lake", *settings) for part in ("--set", each)]
        main = job.check if module is jobs.verify else job.main
        return main(module.run, module.__doc__, arguments)

    def promote(self, version: str, *settings: str, name: str = NAME, alias: str = "champion") -> int:
        own = (f"promote.model={name}", f"promote.version={version}", f"promote.alias={alias}")
        return self.run(jobs.promote, *own, *(settings or self.keys.signing))

    def context(self, *settings: str) -> ScoringContext:
        """Read what a night needs, as `jobs/score.py` does."""
        config = load([], [f"lake={self.lake.root}", *NIGHT, *(settings or (self.keys.trusting,))])
        return night_context.open_context(self.lake, config, "run", registry.dt.datetime.now(registry.dt.UTC))

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath("lake/models", *(parts or (NAME, V1)))

    @property
    def statuses(self) -> list[str]:
        rows = self.lake.read("audit", ["status", "finished_at"]).to_pylist()
        return [row["status"] for row in sorted(rows, key=lambda row: row["finished_at"])]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A champion that was promoted, both signed."""
    made = Site(tmp_path)
    made.train(V1, keys=made.keys)
    assert made.promote(V1) == 0
    return made


def rewritten(folder: Path, name: str = "weights.npz", change: Callable[[bytes], bytes] = lambda old: old) -> None:
    """Change a file of a model, and its manifest so that it fits."""
    content = change((folder / name).read_bytes())
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def forged_history(site: Site, version: str = V1) -> None:
    """Make the aliases name the present manifest, as an attacker without a key can."""
    aliases = json.loads(site.path(NAME, "_aliases.json").read_text())
    aliases["history"][-1]["sha256"] = hashlib.sha256(
        (site.path(NAME, version) / "manifest.json").read_bytes()
    ).hexdigest()
    site.path(NAME, "_aliases.json").write_text(json.dumps(aliases))


def blinded(content: bytes) -> bytes:
    """Return validation scores from which a threshold that nothing reaches follows."""
    scores = json.loads(content)
    return json.dumps({**scores, "benign_tail": [60.0 for _ in scores["benign_tail"]]}).encode()


def other_weights(content: bytes) -> bytes:
    stream = io.BytesIO(content)
    import numpy as np

    packed = dict(np.load(stream))
    packed["w001"] += 1
    out = io.BytesIO()
    np.savez(out, **packed)
    return out.getvalue()


def edit_weights(site: Site) -> None:
    rewritten(site.path(), "weights.npz", other_weights)


def edit_calibration(site: Site) -> None:
    rewritten(site.path(), "validation_scores.json", blinded)


def remove_signature(site: Site) -> None:
    (site.path() / "signature.json").unlink()


def sign_by_another(site: Site) -> None:
    sha256 = hashlib.sha256((site.path() / "manifest.json").read_bytes()).hexdigest()
    signatures.sign_model(str(site.path()), site.others.sign_key, NAME, V1, sha256)


def claim_the_key(site: Site) -> None:
    """Sign with another key and state the id of the trusted one."""
    edit_weights(site)
    sign_by_another(site)
    path = site.path() / "signature.json"
    path.write_text(path.read_text().replace(site.others.sign_key.key_id, site.keys.sign_key.key_id))


def edit_statement(site: Site) -> None:
    """Keep the signature and state the hash of the present manifest."""
    old = hashlib.sha256((site.path() / "manifest.json").read_bytes()).hexdigest()
    edit_weights(site)
    path = site.path() / "signature.json"
    new = hashlib.sha256((site.path() / "manifest.json").read_bytes()).hexdigest()
    path.write_text(path.read_text().replace(old, new))


def copy_of_a_version(site: Site) -> None:
    site.train(V2, keys=site.keys)
    shutil.copy(site.path(NAME, V2, "signature.json"), site.path() / "signature.json")


def copy_of_a_model(site: Site) -> None:
    site.train(V1, OTHER, site.keys)
    shutil.copy(site.path(OTHER, V1, "signature.json"), site.path() / "signature.json")


def signature_of_aliases(site: Site) -> None:
    shutil.copy(site.path(NAME, "_aliases.sig.json"), site.path() / "signature.json")


def break_signature(site: Site) -> None:
    (site.path() / "signature.json").write_bytes(b"{" * 9)


def edit_aliases(site: Site) -> None:
    site.train(V2, keys=site.keys)
    path = site.path(NAME, "_aliases.json")
    path.write_text(path.read_text().replace(V1, V2))


def unsign_aliases(site: Site) -> None:
    site.path(NAME, "_aliases.sig.json").unlink()


def aliases_of_another_key(site: Site) -> None:
    path = site.path(NAME, "_aliases.json")
    signed = site.others.sign_key.sign("aliases", signatures.of_aliases(NAME, path.read_bytes()))
    site.path(NAME, "_aliases.sig.json").write_bytes(signed)


def aliases_of_another_model(site: Site) -> None:
    site.train(V1, OTHER, site.keys)
    assert site.promote(V1, name=OTHER) == 0
    for name in ("_aliases.json", "_aliases.sig.json"):
        shutil.copy(site.path(OTHER, name), site.path(NAME, name))


def remove_aliases(site: Site) -> None:
    for name in ("_aliases.json", "_aliases.sig.json"):
        site.path(NAME, name).unlink()


def put_back_older_aliases(site: Site) -> None:
    """A version that was withdrawn comes back with its genuine signature."""
    kept = {name: site.path(NAME, name).read_bytes() for name in ("_aliases.json", "_aliases.sig.json")}
    site.train(V2, keys=site.keys)
    assert site.promote(V2) == 0
    for name, content in kept.items():
        site.path(NAME, name).write_bytes(content)


ATTACKS: dict[Callable[[Site], None], str] = {
    remove_signature: "is not signed",
    sign_by_another: "is unknown",
    claim_the_key: "was edited",
    edit_statement: "was edited",
    edit_weights: "was changed after it was signed",
    edit_calibration: "was changed after it was signed",
    copy_of_a_version: f"is the signature of {NAME} version {V2}, not of {NAME} version {V1}",
    copy_of_a_model: f"is the signature of {OTHER} version {V1}, not of",
    signature_of_aliases: "was edited",
    break_signature: "is no file of a signature",
    unsign_aliases: "_aliases.json is not signed",
    edit_aliases: "_aliases.json was changed after it was signed",
    aliases_of_another_key: "is unknown",
    aliases_of_another_model: f"is the signature of {OTHER}, not of {NAME}",
    remove_aliases: "it was removed",
    put_back_older_aliases: "is an older one that was put back",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_night_is_refused_with_a_message_of_its_own_and_an_audit_row(
    site: Site, caplog: Log, attack: Callable[[Site], None]
) -> None:
    attack(site)
    caplog.clear()
    before = site.statuses
    assert site.run(jobs.score, *NIGHT, site.keys.trusting) == 2
    [message] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert ATTACKS[attack] in message
    assert "promote.sign=true" in message or "sign again" in message
    assert site.statuses == [*before, "refused"]
    assert site.run(jobs.verify, site.keys.trusting) == 3
    faults = [
        record.getMessage() for record in caplog.records if record.module == "job" and record.levelname == "ERROR"
    ]
    assert ATTACKS[attack] in faults[1]


@pytest.mark.parametrize("attack", [edit_weights, edit_calibration], ids=lambda attack: attack.__name__)
def test_without_trusted_keys_who_can_write_the_lake_can_change_the_model(
    site: Site, attack: Callable[[Site], None]
) -> None:
    """Why keys are needed: the hashes fit, as the attacker has computed them anew."""
    attack(site)
    forged_history(site)
    assert site.context("score.trusted_keys=[]").champion.card.version == V1


def test_a_signed_model_is_used_and_the_page_says_by_which_key(site: Site) -> None:
    context = site.context()
    assert (context.champion.card.version, context.challenger, context.challenger_refused) == (V1, None, None)
    assert site.keys.sign_key.key_id in context.facts()["signature"]
    assert "in score.trusted_keys" in context.facts()["signature"]
    assert site.run(jobs.verify, site.keys.trusting) == 0
    site.train(V2, keys=site.others)  # nothing may use it, so that it is no fault
    assert site.run(jobs.verify, site.keys.trusting) == 0


def test_without_trusted_keys_the_page_says_that_nothing_was_checked(site: Site) -> None:
    assert "not checked: score.trusted_keys is not set" in site.context("score.trusted_keys=[]").facts()["signature"]
    remove_signature(site)
    assert site.context("score.trusted_keys=[]").facts()["signature"] == "unsigned model"


def test_a_single_version_is_not_champion_without_a_signed_promotion(tmp_path: Path) -> None:
    made = Site(tmp_path)
    made.train(V1, keys=made.keys)
    assert made.context("score.trusted_keys=[]").champion.card.version == V1
    with pytest.raises(ModelUnusable, match="no signed promotion names a champion"):
        made.context()


def test_a_bad_challenger_does_not_stop_the_night_and_is_said(site: Site) -> None:
    site.train(V2, keys=site.keys)
    assert site.promote(V2, alias="challenger") == 0
    assert site.context().challenger is not None
    rewritten(site.path(NAME, V2), "weights.npz", other_weights)
    context = site.context()
    assert (context.champion.card.version, context.challenger) == (V1, None)
    assert "was changed after it was signed" in str(context.challenger_refused)


@pytest.mark.parametrize("name", ["model.json", "preprocessor.json", "validation_scores.json", "weights.npz"])
def test_a_challenger_with_any_broken_file_stops_no_night(site: Site, name: str) -> None:
    site.train(V2)
    assert site.promote(V2, "train.sign_key=null", alias="challenger") == 0
    for content in (b"{}", b"null", b"[" * 1000, b"\xff"):
        rewritten(site.path(NAME, V2), name, lambda old, content=content: content)  # type: ignore[misc]
        forged_history(site, V2)
        context = site.context("score.trusted_keys=[]")
        assert (context.champion.card.version, context.challenger) == (V1, None)
        assert f"{NAME}/{V2}" in str(context.challenger_refused)


@pytest.mark.parametrize("name", ["_aliases.json", "_aliases.sig.json", f"{V1}/signature.json", f"{V1}/weights.npz"])
def test_a_pipe_or_folder_in_place_of_a_file_is_refused_at_once(site: Site, name: str) -> None:
    path = site.path(NAME, name)
    path.unlink()
    for make in (os.mkfifo, os.mkdir):
        make(path)
        with pytest.raises(ModelUnusable, match="is no file, but a folder, pipe or device"):
            site.context()
        path.unlink() if path.is_fifo() else path.rmdir()


def test_an_audit_row_of_a_night_recognises_aliases_that_were_put_back(site: Site) -> None:
    """Also where the row of the promotion itself was removed."""
    kept = {name: site.path(NAME, name).read_bytes() for name in ("_aliases.json", "_aliases.sig.json")}
    site.train(V2, keys=site.keys)
    assert site.promote(V2) == 0
    [newest] = [p for p in (site.folder / "lake/audit").iterdir() if V2 in p.read_bytes().decode("latin-1")]
    newest.rename(newest.with_name(newest.name.replace("-promote", "-score")))
    for name, content in kept.items():
        site.path(NAME, name).write_bytes(content)
    with pytest.raises(ModelUnusable, match="older one that was put back"):
        site.context()


def test_inserted_rows_do_not_hide_older_aliases(site: Site, caplog: Log) -> None:
    put_back_older_aliases(site)
    [row] = site.lake.read("audit").slice(0, 1).to_pylist()
    for i in range(101):
        site.lake.write("audit", [{**row, "aliases": []}], run_id=f"29991231T000000Z-{i:08d}", job="promote")
    with pytest.raises(ModelUnusable, match="older one that was put back"):
        site.context()
    assert site.run(jobs.verify, site.keys.trusting) == 3
    assert "is an older one that was put back" in caplog.text


def test_broken_rows_do_not_hide_older_aliases(site: Site) -> None:
    kept = {name: site.path(NAME, name).read_bytes() for name in ("_aliases.json", "_aliases.sig.json")}
    site.train(V2, keys=site.keys)
    assert site.promote(V2) == 0
    for path in list((site.folder / "lake/audit").iterdir()):
        path.rename(path.with_name(path.name.replace("-promote", "-score")))  # as if only a night had stated it
    for i in range(20):
        (site.folder / f"lake/audit/29991231T000000Z-{i:08d}-score.parquet").write_bytes(b"PAR1")
    for name, content in kept.items():
        site.path(NAME, name).write_bytes(content)
    with pytest.raises(ModelUnusable, match="older one that was put back"):
        site.context()


def _states(model: Any, changed_at: Any) -> pa.Table:
    return pa.table({"aliases": [[{"model": model, "changed_at": changed_at}]]})


UNUSABLE_ROWS = {
    "empty": b"",
    "damaged": b"PAR1",
    "other type": pa.table({"aliases": [["text"]]}),
    "no model": pa.table({"aliases": [[{"changed_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}]]}),
    "model of another type": _states([NAME], dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    "no zone": _states(NAME, dt.datetime(2026, 1, 1)),
    "to come": _states(NAME, dt.datetime(9999, 12, 31, 23, 59, tzinfo=dt.UTC)),
    "beyond the calendar": _states(NAME, pa.scalar(2**62, pa.timestamp("us", "UTC"))),
    "equal values that take gigabytes": pa.table(
        {"aliases": pa.ListArray.from_arrays(pa.array([0, 11_000_000], pa.int32()), pa.nulls(11_000_000))}
    ),
}


@pytest.mark.parametrize("content", UNUSABLE_ROWS.values(), ids=list(UNUSABLE_ROWS))
def test_an_audit_row_that_cannot_be_used_stops_no_job(site: Site, content: bytes | pa.Table) -> None:
    path = site.folder / "lake/audit/29991231T000000Z-aa-promote.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(content, path)
    assert site.context().champion.card.version == V1
    assert site.promote(V1) == 0  # its own row, written with all heads
    assert site.run(jobs.verify, site.keys.trusting) == 3
    path.unlink()
    assert site.run(jobs.verify, site.keys.trusting) == 0


def test_verify_names_a_model_that_was_removed_as_a_whole(site: Site, caplog: Log) -> None:
    site.train(V1, OTHER, site.keys)
    assert site.promote(V1, name=OTHER) == 0
    shutil.rmtree(site.path(NAME))
    assert site.run(jobs.verify, site.keys.trusting) == 3
    assert f"models/{NAME}/_aliases.json is missing" in caplog.text


def test_models_older_than_the_key_are_signed_by_a_promotion(tmp_path: Path, caplog: Log) -> None:
    made = Site(tmp_path)
    made.train(V1)
    made.train(V2)
    assert made.promote(V1, "train.sign_key=null") == 0
    assert made.promote(V1) == 2
    assert "_aliases.json is not signed" in caplog.text
    assert made.promote(V1, *made.keys.signing, "promote.sign=true") == 0
    assert made.context().champion.card.version == V1
    history = registry.read_aliases(made.lake.uri("models"), NAME).history
    assert [(each.version, each.previous, each.reason) for each in history] == [
        (V1, None, None),
        (V1, None, "signed again"),
    ]
    assert made.promote(V2) == 2  # nobody has vouched for it
    assert made.promote(V2, *made.keys.signing, "promote.sign=true") == 0
    assert made.promote("previous") == 0
    assert made.context().champion.card.version == V1
    assert made.run(jobs.verify, made.keys.trusting) == 0


def test_keys_are_replaced_without_a_night_that_is_refused(site: Site, caplog: Log) -> None:
    new = key_pair(site.folder / "keys", "new")
    both = f"score.trusted_keys=[{site.keys.public},{new.public}]"
    assert site.context(both).champion.card.version == V1  # 1. trust both
    assert site.promote(V1, f"train.sign_key={new.private}", both, "promote.sign=true") == 0  # 2. sign with the new one
    assert new.sign_key.key_id in site.context(both).facts()["signature"]
    assert site.context(new.trusting).champion.card.version == V1  # 3. trust the new one alone
    assert site.run(jobs.verify, new.trusting) == 0
    with pytest.raises(ModelUnusable, match="is unknown"):
        site.context(site.keys.trusting)


def test_a_promotion_signs_only_what_will_be_trusted(site: Site, caplog: Log) -> None:
    site.train(V2, keys=site.keys)
    aliases = site.path(NAME, "_aliases.json").read_bytes()
    assert site.promote(V2, site.keys.trusting) == 2
    assert "train.sign_key is not set" in caplog.text
    assert site.promote(V2, site.keys.trusting, f"train.sign_key={site.others.private}") == 2
    assert f"is the key {site.others.sign_key.key_id}" in caplog.text
    assert site.promote(V2, "promote.sign=true") == 2
    assert "promote.sign is set, but train.sign_key is not" in caplog.text
    assert site.path(NAME, "_aliases.json").read_bytes() == aliases


@pytest.mark.parametrize("attack", [edit_weights, edit_aliases, remove_aliases], ids=lambda attack: attack.__name__)
def test_an_attacked_champion_spares_no_version_the_comparison(
    site: Site, caplog: Log, attack: Callable[[Site], None]
) -> None:
    attack(site)
    shutil.rmtree(site.path(NAME, V2), ignore_errors=True)
    site.train(V2, keys=site.keys)
    assert site.promote(V2) == 2
    assert ATTACKS[attack] in caplog.text
    if attack is edit_weights:  # a person may decide otherwise, on record
        caplog.clear()
        assert site.promote(V2, *site.keys.signing, "promote.force=true", "promote.reason=broken into") == 0
        assert site.context().champion.card.version == V2


def test_a_file_that_was_swapped_after_the_check_is_refused(site: Site) -> None:
    checked = read_model(str(site.path()))
    assert read_model(str(site.path()), checked.sha256).sha256 == checked.sha256
    rewritten(site.path(), "weights.npz", other_weights)
    with pytest.raises(ModelUnusable, match="was changed while it was in use"):
        read_model(str(site.path()), checked.sha256)


# Keys


def secrets_of(pair: KeyPair) -> list[str]:
    return [*pair.private.read_text().splitlines()[1:-1], pair.key.private_bytes_raw().hex()]


@pytest.mark.parametrize("form", ["file", "raw file", "hex file", "variable", "hex variable"])
def test_a_private_key_is_read_in_each_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    pair = key_pair(tmp_path)
    raw, setting = pair.key.private_bytes_raw(), str(pair.private)
    if form == "raw file":
        pair.private.write_bytes(raw)
    elif form == "hex file":
        pair.private.write_text(raw.hex() + "\n")
    elif "variable" in form:
        monkeypatch.setenv("A_KEY", raw.hex() if "hex" in form else pair.private.read_text())
        setting = "env:A_KEY"
    key = load_sign_key(setting)
    assert key is not None
    assert key.key_id == pair.sign_key.key_id
    assert load_sign_key(None) is None


def test_keys_of_openssl_are_read(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    private, public = tmp_path / "key", tmp_path / "key.pub"
    command = f"(umask 077; {openssl} genpkey -algorithm ed25519 -out {private}); umask 022;"
    subprocess.run(["bash", "-c", f"{command} {openssl} pkey -in {private} -pubout -out {public}"], check=True)
    key, trust = load_sign_key(str(private)), open_trust(Lake(str(tmp_path / "lake")), [str(public)])
    assert key is not None
    assert trust is not None
    assert list(trust.keys) == [key.key_id]


def pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 31,
        b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIsecret\n-----END PRIVATE KEY-----\n",
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ed448.Ed448PrivateKey.generate()),
        pem(Ed25519PrivateKey.generate(), b"a password"),
    ],
    ids=["empty", "short", "damaged", "rsa", "ed448", "password"],
)
def test_what_is_no_private_key_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(SignKeyUnusable, match="openssl genpkey") as error:
        load_sign_key(str(path))
    lines = [line for line in content.decode("latin-1").splitlines() if line]
    assert not any(line in str(error.value) for line in lines)
    assert error.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o700])
def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    pair = key_pair(tmp_path)
    pair.private.chmod(mode)
    with pytest.raises(SignKeyUnusable, match=f"has mode {mode:04o}"):
        load_sign_key(str(pair.private))
    with pytest.raises(SignKeyUnusable, match="No such file"):
        load_sign_key(str(tmp_path / "absent"))
    with pytest.raises(SignKeyUnusable, match="no such variable"):
        load_sign_key("env:ABSENT_KEY")


def test_a_run_trusts_what_it_has_signed_itself_and_nothing_else(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.train(V1, keys=site.keys)
    site.train(V2, keys=site.others)
    models, own = site.lake.uri("models"), site.keys.sign_key.trust(site.lake)
    assert registry.read_version(models, NAME, V1, own).card.version == V1
    with pytest.raises(signatures.SignatureRefused):
        registry.read_version(models, NAME, V2, own)
    site.train(V1)  # another content below the signature
    edit_weights(site)
    with pytest.raises(signatures.SignatureRefused):
        registry.read_version(models, NAME, V1, own)


def test_a_key_leaves_the_driver_in_no_way(tmp_path: Path) -> None:
    pair = key_pair(tmp_path)
    key = load_sign_key(str(pair.private))
    for dump in (pickle.dumps, cloudpickle.dumps):
        with pytest.raises(TypeError, match="stays in the driver"):
            dump(key)
    with pytest.raises(TypeError):
        copyreg.__reduce_ex__(key, 4)
    assert repr(key) == f"SignKey(key_id={pair.sign_key.key_id!r})"


@pytest.mark.parametrize("form", ["hex", "pem", "base64"])
def test_a_key_in_place_of_its_name_is_refused_without_showing_it(tmp_path: Path, form: str) -> None:
    pair = key_pair(tmp_path)
    secrets = secrets_of(pair)
    given = {"hex": secrets[-1], "pem": pair.private.read_text(), "base64": secrets[0]}[form]
    with pytest.raises(ConfigError, match=r"train\.sign_key: found something else, perhaps the key itself") as error:
        load([], [f"train.sign_key={json.dumps(given)}"])
    assert not any(secret in str(error.value) for secret in secrets)


def test_no_log_and_no_table_holds_the_key(site: Site, caplog: Log) -> None:
    site.train(V2, keys=site.keys)
    with caplog.at_level("DEBUG"):
        assert site.promote(V2) == 0
        site.keys.private.chmod(0o644)
        assert site.promote(V1) == 2
    files = [path for path in (site.folder / "lake").rglob("*") if path.is_file()]
    raw = site.keys.key.private_bytes_raw()
    for secret in (*(text.encode() for text in secrets_of(site.keys)), raw):
        assert not any(secret in path.read_bytes() for path in files)
        assert secret.decode("latin-1") not in caplog.text


def test_trusted_keys_are_outside_the_lake_and_written_by_their_owner_only(site: Site) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(TrustedKeyUnusable) as error:
            open_trust(site.lake, [str(path)])
        return str(error.value)

    public = site.keys.public
    inside, link = site.folder / "lake/key.pub", site.folder / "keys/link.pub"
    shutil.copy(public, inside)
    link.symlink_to(inside)
    assert "is in the lake" in refused(inside)
    assert "is in the lake" in refused(link)
    assert "No such file" in refused(site.folder / "absent.pub")
    assert "holds a private key" in refused(site.keys.private)
    for mode in (0o664, 0o646, 0o666):
        public.chmod(mode)
        assert f"has mode {mode:04o}" in refused(public)
    public.chmod(0o444)
    assert open_trust(site.lake, [str(public)]) is not None
    public.chmod(0o644)
    public.parent.chmod(0o777)
    assert "is in a folder of mode 0777" in refused(public)
    public.parent.chmod(0o1777)  # as /tmp: others can add files, but replace none
    assert open_trust(site.lake, [str(public)]) is not None
    public.write_bytes(b"nothing")
    assert "is no Ed25519 public key" in refused(public)
    assert open_trust(site.lake, []) is None
    assert issubclass(TrustedKeyUnusable, InputError)
