import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.alerts import severity
from ids_spark.alerts.severity import (
    CATEGORIES,
    DEFAULT,
    SEVERITIES,
    Categories,
    Escalation,
    SeverityPolicy,
    SeverityPolicyUnusable,
    read_severity_policy,
)
from ids_spark.dataset.taxonomy import CLASS2, CLASS6, CLASS19, CLASSES, UnknownClass, class6_of

EXAMPLE = Path(__file__).parents[2] / "conf" / "severity.yaml"
ALL = "categories: {Attack: low, DDoS: high, DoS: medium, MQTT: high, Recon: low, Spoofing: medium}\n"


@pytest.fixture
def policy_file(tmp_path):
    def write(text):
        (tmp_path / "severity.yaml").write_text(text, encoding="utf-8")
        return str(tmp_path / "severity.yaml")

    return write


def refusal(uri):
    with pytest.raises(SeverityPolicyUnusable) as error:
        read_severity_policy(str(uri))
    return str(error.value)


def test_the_example_in_conf_equals_the_default():
    assert read_severity_policy(str(EXAMPLE)) == DEFAULT == read_severity_policy(None)


def test_every_class_of_every_level_has_a_severity_by_default():
    for names in CLASSES.values():
        assert set(DEFAULT.severities(pa.array(names)).to_pylist()) <= set(SEVERITIES)
    assert (
        set(Categories.model_fields)
        == set(CATEGORIES) - {"Benign"}
        == {
            *CLASS6[1:],
            CLASS2[1],
            "Unknown",
            "Quarantined",
        }
    )


@pytest.mark.parametrize(
    ("class_name", "severity"),
    [
        ("Benign", "informational"),
        ("Attack", "medium"),
        ("Unknown", "medium"),
        ("Recon-Ping_Sweep", "low"),
        ("Recon-VulScan", "medium"),
        ("ARP_Spoofing", "high"),
        ("Spoofing", "high"),
        ("DDoS-TCP", "high"),
        ("MQTT-Malformed_Data", "high"),
        ("MQTT-DoS-Publish_Flood", "high"),
        ("MQTT-DDoS-Publish_Flood", "critical"),
        ("MQTT", "high"),
    ],
)
def test_the_default_puts_medical_devices_first(class_name, severity):
    assert DEFAULT.severities(pa.array([class_name])).to_pylist() == [severity]


def test_more_flows_raise_an_incident_and_nothing_is_lowered():
    names = pa.array(["DoS-TCP", "DoS-TCP", "Recon-OS_Scan", "Recon-Ping_Sweep", "MQTT-DDoS-Connect_Flood", "Attack"])
    flows = np.array([9_999, 10_000, 10**9, 1_000, 1, 10**9])
    assert DEFAULT.severities(names, flows).to_pylist() == [
        "high",
        "critical",
        "medium",
        "medium",
        "critical",
        "medium",
    ]


def test_an_escalation_by_score_takes_the_worst_of_all_that_hold(policy_file):
    policy = read_severity_policy(
        policy_file(
            ALL + "classes: {Recon-VulScan: informational}\n"
            "raised:\n"
            "- {to: critical, of: [Attack], at_least_probability: 0.99, at_least_flows: 10}\n"
            "- {to: medium, at_least_probability: 0.9}\n"
            "- {to: high, of: [Recon-VulScan, DoS], at_least_flows: 5}\n"
        )
    )
    names = pa.array(["Recon-VulScan"] * 5 + ["Benign", "DoS-UDP", None])
    flows = np.array([1, 4, 5, 9, 10, 100, 5, 100])
    probabilities = np.array([0.5, 0.9, 0.5, 1.0, 0.99, 1.0, np.nan, 1.0])
    expected = ["informational", "medium", "high", "high", "critical", "medium", "high", None]
    assert policy.severities(names, flows, probabilities).to_pylist() == expected
    single = policy.severities(
        names, probability=probabilities.astype(np.float32)
    ).to_pylist()  # as flows, not incidents
    assert single == ["informational", "informational", "informational", "medium", "medium", "medium", "medium", None]
    assert policy.severities(names).to_pylist() == ["informational"] * 6 + ["medium", None]


def test_class_ids_and_class_names_give_the_same_severities():
    rng = np.random.default_rng(3)
    for level, names in CLASSES.items():
        ids = rng.integers(0, level, 1_000_000).astype(np.int32)
        probability = rng.random(len(ids), dtype=np.float32)
        found = DEFAULT.severity_ids(ids, CLASSES[level], probability=probability)
        assert found.dtype == np.int32
        coded = pa.DictionaryArray.from_arrays(pa.array(ids), pa.array(names))
        by_name = DEFAULT.severities(pa.chunked_array([coded[:7], coded[7:]]), probability=probability)
        assert by_name.equals(pa.array(SEVERITIES).take(pa.array(found)))


def test_no_flow_has_no_severity():
    assert DEFAULT.severity_ids(np.empty(0, np.int32), CLASSES[19]).shape == (0,)
    assert DEFAULT.severities(pa.array([], pa.string())).to_pylist() == []
    assert DEFAULT.severities(pa.array([None], pa.string())).to_pylist() == [None]


def test_a_class_is_selected_by_its_name_its_category_and_attack():
    for name in CLASS19:
        assert severity.category_of(name) == class6_of(name)
    assert severity.lineage_of("MQTT-DoS-Connect_Flood") == {"MQTT-DoS-Connect_Flood", "MQTT", "Attack"}
    assert severity.lineage_of("Attack") == {"Attack"}
    assert severity.lineage_of("Benign") == {"Benign"}
    assert severity.lineage_of("Unknown") == {"Unknown", "Attack"}
    assert severity.category_of("Unknown") == "Unknown"
    assert severity.lineage_of("Quarantined") == {"Quarantined"}  # `Attack` in a policy does not mean it
    assert severity.category_of("Quarantined") == "Quarantined"
    with pytest.raises(UnknownClass, match="'Worm' is not a known class; expected one of ARP_Spoofing, Attack"):
        DEFAULT.severities(pa.array(["DDoS", "Worm"]))


def test_a_policy_may_set_unknown_and_an_old_one_benign(policy_file, caplog):
    assert read_severity_policy(policy_file(ALL)).categories.Unknown == "medium"
    assert not caplog.records
    text = ALL.replace("{Attack", "{Benign: low, Unknown: critical, Attack")
    found = read_severity_policy(policy_file(text + "raised: [{to: critical, of: [Unknown], at_least_flows: 5}]\n"))
    assert found.severities(pa.array(["Unknown", "Benign"])).to_pylist() == ["critical", "informational"]
    assert "categories.Benign has no effect" in caplog.text


def test_every_fault_is_listed_at_once(policy_file):
    text = refusal(
        policy_file(
            "categories: {Attack: low, DDoS: hih, Rcon: low, DoS: high, MQTT: high, Spoofing: high}\n"
            "classes: {DDoS-ICPM: high, MQTT: low, Recon-VulScan: urgent}\n"
            "raised: [{to: high}, {of: [Worm], at_least_flows: 0, at_least_probability: 2}]\n"
            "default: low\n"
        )
    )
    for part in (
        "severity.yaml has 12 fault(s):\n",
        "categories.DDoS: Input should be 'critical', 'high', 'medium', 'low' or 'informational'; found 'hih'\n",
        "categories.Recon: missing\n",
        "categories.Rcon: unknown key, did you mean 'Recon'?",
        "classes.DDoS-ICPM: no class or category 'DDoS-ICPM'; did you mean 'DDoS-ICMP'?\n",
        "classes.MQTT: 'MQTT' is a category; set its severity in categories\n",
        "classes.Recon-VulScan: Input should be 'critical'",
        "raised.#1: expected at_least_flows, at_least_probability or both; found neither\n",
        "raised.#2.to: missing\n",
        "raised.#2.of.#1: no class or category 'Worm'; expected one of Benign, DDoS",
        "raised.#2.at_least_flows: Input should be greater than or equal to 1; found 0\n",
        "raised.#2.at_least_probability: Input should be less than or equal to 1; found 2\n",
        "default: unknown key",
    ):
        assert part in text
    assert text.endswith("See conf/severity.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("categories: [", "severity.yaml: not YAML: "),
        (ALL + ALL, "not YAML: duplicate key: categories in"),
        (ALL.replace("DDoS: high", "DDoS: high, DDoS: low"), "not YAML: duplicate key: DDoS in"),
        ("", "has 1 fault(s):\n  Input should be a valid dictionary or instance of SeverityPolicy; found None"),
        ("- 1", "Input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(policy_file, text, message):
    assert message in refusal(policy_file(text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    text = refusal(tmp_path / "absent.yaml")
    assert text.startswith(f"{tmp_path}/absent.yaml: ")
    assert text.endswith("; expected a YAML file such as conf/severity.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "binary.yaml: not YAML" in refusal(tmp_path / "binary.yaml")


def test_the_hash_depends_on_the_content_of_a_policy_not_on_order_or_comments(policy_file):
    escalations = ["{to: high, of: [DoS, MQTT], at_least_flows: 5}", "{to: low, at_least_flows: 7}"]
    one = read_severity_policy(
        policy_file(ALL + f"classes: {{DoS-TCP: low, DoS-UDP: low}}\nraised: [{escalations[0]}, {escalations[1]}]\n")
    )
    escalations[0] = escalations[0].replace("DoS, MQTT", "MQTT, DoS")
    other = read_severity_policy(
        policy_file(
            f"raised: [{escalations[1]}, {escalations[0]}]\nclasses: {{DoS-UDP: low, DoS-TCP: low}} # x\n" + ALL
        )
    )
    assert one.sha256() == other.sha256() != DEFAULT.sha256()
    assert len(one.sha256()) == 64


def test_a_policy_can_be_pickled_and_cannot_be_changed():
    assert pickle.loads(pickle.dumps(DEFAULT)) == DEFAULT  # noqa: S301
    with pytest.raises(ValueError, match="frozen"):
        DEFAULT.raised = ()
    assert (
        SeverityPolicy(categories=DEFAULT.categories, raised=[Escalation(to="low", at_least_flows=1)]).raised[0].to
        == "low"
    )
