import datetime as dt
import hashlib
import itertools
import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from ids_spark.config.loader import ConfigError, load
from ids_spark.config.settings import Config


def refused(files=(), settings=()):
    with pytest.raises(ConfigError) as error:
        load([str(f) for f in files], settings)
    return str(error.value)


@pytest.fixture
def yaml_file(tmp_path):
    def write(text, name="run.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_without_files_every_key_has_its_default():
    config = load([], [])
    assert config == Config()
    assert (config.train.batch_size, config.train.learning_rate, config.train.epochs) == (64, 1e-4, 50)
    assert config.train.tensorboard is False
    assert {(m.bins, m.embedding, m.ensemble_size) for m in (config.train.dnn, config.train.gru_dnn)} == {(0, 0, 1)}
    assert (config.features.min_std, config.features.validation_share) == (1e-8, 0.2)


def test_the_later_file_takes_precedence_and_other_keys_are_kept(yaml_file):
    first = yaml_file("train: {epochs: 9, ranks: 4, dnn: {dropout: 0.1}}\nlake: a\n", "a.yaml")
    second = yaml_file("train: {epochs: 3, dnn: {dense: [8]}}\n", "b.yaml")
    config = load([first, second], [])
    assert (config.train.epochs, config.train.ranks, config.lake) == (3, 4, "a")
    assert (config.train.dnn.dropout, config.train.dnn.dense) == (0.1, (8,))
    assert load([second, first], []).train.epochs == 9


def test_settings_override_files_and_later_settings_override_earlier_ones(yaml_file):
    assert load([yaml_file("seed: 1")], ["seed=2", "seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("setting", "read", "expected"),
    [
        ("train.models=[dnn]", lambda c: c.train.models, ("dnn",)),
        ("train.classes=[19, 2]", lambda c: c.train.classes, (19, 2)),
        ("train.gru_dnn.dense=[16,8]", lambda c: c.train.gru_dnn.dense, (16, 8)),
        ("score.models=[]", lambda c: c.score.models, ()),
        ("train.learning_rate=1e-3", lambda c: c.train.learning_rate, 1e-3),
        ("synthesize.capture_day_iat=false", lambda c: c.synthesize.capture_day_iat, False),
        ("train.dnn.ensemble_size=64", lambda c: c.train.dnn.ensemble_size, 64),
        ("train.gru_dnn.ensemble_size=1", lambda c: c.train.gru_dnn.ensemble_size, 1),
        ("train.lstm={bins: 8, embedding: 12}", lambda c: c.train.lstm.embedding, 12),
        ("train.tensorboard=true", lambda c: c.train.tensorboard, True),
        ("lake=hdfs://namenode:8020/lake", lambda c: c.lake, "hdfs://namenode:8020/lake"),
        ("lake=a=b", lambda c: c.lake, "a=b"),
        ("lake=@home", lambda c: c.lake, "@home"),  # no YAML; taken as text
        ("ingest.source=null", lambda c: c.ingest.source, None),
        ("ingest.source=/data/my run #3", lambda c: c.ingest.source, "/data/my run #3"),
        ("ingest.source='/data/run #3'", lambda c: c.ingest.source, "/data/run #3"),
        ("train.models=[dnn] # one", lambda c: c.train.models, ("dnn",)),
        ("ingest.source=/data ", lambda c: c.ingest.source, "/data"),
        ("ingest.source=/a#b%20c?d", lambda c: c.ingest.source, "/a#b%20c?d"),
        ("purge.today=2024-05-01", lambda c: c.purge.today, dt.date(2024, 5, 1)),
        ("purge.today='2024-05-01'", lambda c: c.purge.today, dt.date(2024, 5, 1)),
    ],
)
def test_a_setting_is_read_as_yaml(setting, read, expected):
    assert read(load([], [setting])) == expected


def test_a_date_in_a_file_needs_no_quotes(yaml_file):
    assert load([yaml_file("purge:\n  today: 2024-05-01\n")], []).purge.today == dt.date(2024, 5, 1)


@pytest.mark.parametrize("name", ["../x", "..", "/etc", "a/b", ".hidden", "''", "a b", '"a\\n"'])
@pytest.mark.parametrize(
    "setting",
    [
        "score.split={}",
        "score.models=[{}]",
        "score.version={}",
        "promote.model={}",
        "promote.version={}",
        "features.recipe={}",
        "train.variant=/{}",
    ],
)
def test_a_name_that_becomes_part_of_a_path_is_plain(setting: str, name: str) -> None:
    with pytest.raises(ConfigError, match="should match pattern"):
        load([], [setting.format(name)])


@pytest.mark.parametrize("setting", ["train.epochs", "=5", " =5", ""])
def test_a_malformed_setting_is_shown_with_an_example(setting):
    assert f"--set {setting!r}: expected key=value, for example train.epochs=5" in refused(settings=[setting])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "trian.epochs=5",
            "trian: unknown key, did you mean 'train'? Known here: lake, seed, open_cluster,",
        ),
        ("train.epoch=5", "train.epoch: unknown key, did you mean 'epochs'? Known here: models, classes, feature_set"),
        (
            "train.dnn.gru=5",
            "train.dnn.gru: unknown key. Known here: bins, embedding, ensemble_size, units, dense, dropout",
        ),
        ("seed=-1", "seed: Input should be greater than or equal to 0; found -1"),
        ("seed=4294967296", "seed: Input should be less than 4294967296; found 4294967296"),
        ("boost.min_child_weight=.inf", "boost.min_child_weight: Input should be less than or equal to 1000000000"),
        ("boost.reg_lambda=1e300", "boost.reg_lambda: Input should be less than or equal to 1000000000"),
        ("train.min_delta=.inf", "train.min_delta: Input should be a finite number"),
        ("train.warmup_epochs=.inf", "train.warmup_epochs: Input should be a finite number"),
        ("train.epochs=0", "train.epochs: Input should be greater than or equal to 1; found 0"),
        ("train.models=[dnn,cnn]", "train.models.#2: Input should be 'dnn', 'gru_dnn' or 'lstm'; found 'cnn'"),
        ("train.classes=[2,2]", "train.classes: found 2, 2; expected each once"),
        ("train.classes=[7]", "train.classes.#1: Input should be 2, 6 or 19; found 7"),
        ("train=5", "train: Input should be a valid dictionary or instance of TrainConfig; found 5"),
        ("features.validation_share=1", "features.validation_share: Input should be less than 1; found 1"),
        ("features.recipe=Paper/1", "features.recipe: String should match pattern"),
        ("purge.today=yesterday", "purge.today: found 'yesterday'; expected a date, YYYY-MM-DD"),
        ("train.batch_size=65", "batch_size 65 must be a multiple of ranks 2"),
        (
            "train.gru_dnn.ensemble_size=4",
            "train: gru_dnn.ensemble_size is 4; only dnn may be an ensemble",
        ),
        ("train.lstm.ensemble_size=2", "train: lstm.ensemble_size is 2; only dnn may be an ensemble"),
        ("train.dnn.ensemble_size=0", "train.dnn.ensemble_size: Input should be greater than or equal to 1; found 0"),
        ("train.dnn.ensemble_size=65", "train.dnn.ensemble_size: Input should be less than or equal to 64; found 65"),
        ("train.dnn.embedding=12", "train.dnn: embedding is 12, but bins is 0; an embedding needs bins"),
        (
            "train.dnn={ensemble_size: 4, dense: []}",
            "train.dnn: ensemble_size is 4, but dense is empty; an ensemble needs a",
        ),
        ("train.dnn.embedding=-1", "train.dnn.embedding: Input should be greater than or equal to 0; found -1"),
        ("train.tensorboard=sometimes", "train.tensorboard: Input should be a valid boolean"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(setting, message):
    assert message in refused(settings=[setting])


@pytest.mark.parametrize(("batch_size", "ranks"), [(64, 1), (64, 4), (3, 3), (2, 1)])
def test_a_batch_that_the_ranks_share_evenly_is_accepted(batch_size, ranks):
    assert load([], [f"train.batch_size={batch_size}", f"train.ranks={ranks}"]).train.ranks == ranks


def test_ranks_that_are_chosen_later_take_any_batch():
    assert load([], ["train.batch_size=65", "train.ranks=auto"]).train.ranks == 0
    assert "train.ranks: Input should be greater than or equal to 0; found -1" in refused(settings=["train.ranks=-1"])
    assert "train.ranks: Input should be a valid integer" in refused(settings=["train.ranks=automatic"])


def test_every_fault_is_reported_at_once(yaml_file, tmp_path):
    files = [
        tmp_path / "absent.yaml",
        yaml_file("train: [1, 2\n", "torn.yaml"),
        yaml_file("- 1\n", "list.yaml"),
        yaml_file("seeds: 1\n", "unknown.yaml"),
    ]
    text = refused(files, ["nothing", "train.epochs=few", "features.min_std=-1"])
    assert text.startswith("configuration has 7 fault(s):\n  ")
    for part in (
        f"{tmp_path / 'absent.yaml'}: No such file or directory; expected a YAML file",
        f"{tmp_path / 'torn.yaml'}: not YAML: ",
        f"{tmp_path / 'list.yaml'}: found list, expected keys with values",
        "seeds: unknown key, did you mean 'seed'?",
        "--set 'nothing': expected key=value",
        "train.epochs: Input should be a valid integer",
        "features.min_std: Input should be greater than or equal to 0; found -1",
    ):
        assert part in text
    assert len(text.splitlines()) == 8


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00\x81")
    assert "run.yaml: not YAML" in refused([tmp_path / "run.yaml"])


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    assert "expected a YAML file" in refused([tmp_path])


def test_keys_that_are_there_twice_or_no_text_are_named(yaml_file):
    assert "duplicate key: a, b in" in refused([yaml_file("b: 1\na: 1\nc: 1\na: 2\nb: 2\n")])
    assert "found unhashable key" in refused([yaml_file("a: 1\n? [1, 2]\n: 1\n")])


def test_an_empty_file_changes_nothing(yaml_file):
    assert load([yaml_file("# nothing\n")], []) == Config()


@pytest.mark.parametrize("path", ["seed", "train.epochs", "train.dnn.gru"])
def test_a_configuration_cannot_be_changed(path):
    target = load([], [])
    *sections, key = path.split(".")
    for section in sections:
        target = getattr(target, section)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(target, key, 1)


def test_equal_configurations_have_one_json_and_one_hash(yaml_file):
    from_file = load([yaml_file("train: {epochs: 3}\nseed: 5\n")], [])
    from_settings = load([], ["seed=5", "train.epochs=3"])
    assert from_file.as_json() == from_settings.as_json()
    assert from_file.sha256() == hashlib.sha256(from_settings.as_json().encode()).hexdigest()
    assert from_file.sha256() != load([], ["seed=5", "train.epochs=4"]).sha256()


def test_json_holds_every_value_and_is_read_as_written():
    config = load([], ["train.dnn.dense=[4]", "ingest.source=x", "purge.today=2024-05-01"])
    content = json.loads(config.as_json())
    assert (content["train"]["dnn"]["dense"], content["ingest"]["source"], content["seed"]) == ([4], "x", 7)
    assert Config.model_validate(content) == config


def test_the_hash_is_the_same_in_another_process():
    code = "from ids_spark.config.settings import Config; print(Config().sha256())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == Config().sha256()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("alerts.per_night=7", "alerts.most_lines=7"),
    ],
)
def test_a_setting_works_under_its_old_name_with_a_warning(old, new, caplog):
    assert load([], [old]) == load([], [new])
    key, wanted = old.split("=")[0], new.split("=")[0]
    [warning] = [record.getMessage() for record in caplog.records]
    assert "version 0.4 will refuse the old name" in warning
    assert key.split(".")[0] in warning
    assert wanted.split(".")[0] in warning


@pytest.mark.parametrize("former", ["replica.scale=0.01", "train.profiles=[paper]", "score.event_date=2026-01-01"])
def test_settings_of_version_0_1_are_unknown(former):
    assert f"{former.split('=')[0].removesuffix('.scale')}: unknown key" in refused(settings=[former])


def test_a_later_new_name_takes_precedence_over_an_earlier_old_one(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text("alerts:\n  per_night: 7\n", encoding="utf-8")
    assert load([str(file)], ["alerts.most_lines=9"]).alerts.most_lines == 9


def test_a_duplicate_key_in_a_file_is_refused(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("seed: 1\nseed: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"twice\.yaml: not YAML: duplicate key: seed"):
        load([str(file)], [])


def test_a_duplicate_key_in_a_setting_is_refused_with_every_other_fault():
    text = refused(settings=["train.dnn={units: 8, units: 9}", "train.epochs=0"])
    assert "configuration has 2 fault(s)" in text
    assert "--set 'train.dnn={units: 8, units: 9}': duplicate key: units" in text
    assert "train.epochs: " in text


ALIASES = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefgh")
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 3_000, "nested too deeply"),
        ("train: {epochs: !!float x}", "could not convert string to float"),
        ("train: {epochs: !!timestamp 2026-13-45}", "not YAML"),
        ("seed: " + "9" * 5_000, "4300 digits"),
        (ALIASES, "more than 100,000 values"),
        ("&a [*a]", "an alias in itself"),
        ("train: &t {dnn: *t}", "an alias in itself"),
        ("? [a, b]\n: c", "not YAML"),
    ],
)
def test_yaml_that_cannot_be_read_is_refused_in_one_short_line(yaml_file, text, reason):
    message = refused([yaml_file(text)])
    assert reason in message
    assert len(message.splitlines()) == 2
    assert len(message) < 600


@pytest.mark.parametrize("text", ["[" * 3_000, "!!float x", "9" * 5_000, "&a [*a]", "&a {b: *a}"])
def test_a_setting_that_is_no_yaml_is_text_or_refused(text):
    assert "seed" in refused(settings=[f"seed={text}"])


def test_of_many_faults_the_first_are_listed(yaml_file):
    message = refused(
        [yaml_file("train: {dnn: {dense: [" + ", ".join(["x"] * 2_000) + f"]}}}}\n? {'y' * 5_000}\n: 1\n")]
    )
    assert "train.dnn.dense.#1: Input should be a valid integer" in message
    assert "configuration has 2001 fault(s)" in message
    assert "and 1981 more" in message
    assert len(message) < 20_000


def test_files_that_a_configuration_names_are_found_from_any_folder(tmp_path, monkeypatch, caplog):
    nightly = tmp_path / "share" / "conf" / "nightly"
    nightly.mkdir(parents=True)
    text = "score: {trusted_keys: [conf/a.pub], inventory: /etc/inventory.csv}\nalerts: {allow_list: conf/allow.yaml}\n"
    night = nightly / "night.yaml"
    night.write_text(text)
    for name in ("a.pub", "allow.yaml"):
        (nightly.parent / name).touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load([str(night)], [])
    assert config.alerts.allow_list == str(nightly.parent / "allow.yaml")
    assert config.score.trusted_keys == (str(nightly.parent / "a.pub"),)
    assert config.score.inventory == "/etc/inventory.csv"
    assert not caplog.text
    assert load([str(night)], ["alerts.allow_list=conf/mine.yaml"]).alerts.allow_list == "conf/mine.yaml"
    (elsewhere / "conf").mkdir()
    (elsewhere / "conf" / "allow.yaml").touch()  # the working folder takes precedence
    assert load([str(night)], []).alerts.allow_list == "conf/allow.yaml"
    own = elsewhere / "own.yaml"
    own.write_text("alerts: {severity_policy: missing.yaml}")
    monkeypatch.chdir(tmp_path)
    assert load([str(own)], []).alerts.severity_policy == "missing.yaml"
    for part in ("alerts.severity_policy: missing.yaml", f"neither in {tmp_path},", f"nor in {elsewhere}"):
        assert part in caplog.text


def test_dates_and_times_are_expected_in_words(yaml_file):
    message = refused([], ["score.date=yesterday", "score.as_of=noon", "purge.today=2024-13-01"])
    assert "score.date: found 'yesterday'; expected a date, YYYY-MM-DD" in message
    assert "purge.today: found '2024-13-01'; expected a date, YYYY-MM-DD" in message
    assert "score.as_of: found 'noon'; expected a time with its zone, such as 2026-11-24T07:05:00Z" in message
