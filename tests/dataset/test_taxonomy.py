import numpy as np
import pytest

from ids_spark.dataset import taxonomy
from ids_spark.dataset.taxonomy import UnknownClass, class2_of, class6_of, class19_of, levels_from, parents, split_of

# File name without part number → class at 19 and 6 classes, parts in train, parts in test (0: one file, no number).
OFFICIAL = {
    "Benign": ("Benign", "Benign", 0, 0),
    "TCP_IP-DDoS-ICMP": ("DDoS-ICMP", "DDoS", 8, 2),
    "TCP_IP-DDoS-SYN": ("DDoS-SYN", "DDoS", 4, 0),
    "TCP_IP-DDoS-TCP": ("DDoS-TCP", "DDoS", 4, 0),
    "TCP_IP-DDoS-UDP": ("DDoS-UDP", "DDoS", 8, 2),
    "TCP_IP-DoS-ICMP": ("DoS-ICMP", "DoS", 4, 0),
    "TCP_IP-DoS-SYN": ("DoS-SYN", "DoS", 4, 0),
    "TCP_IP-DoS-TCP": ("DoS-TCP", "DoS", 4, 0),
    "TCP_IP-DoS-UDP": ("DoS-UDP", "DoS", 4, 0),
    "MQTT-DDoS-Connect_Flood": ("MQTT-DDoS-Connect_Flood", "MQTT", 0, 0),
    "MQTT-DDoS-Publish_Flood": ("MQTT-DDoS-Publish_Flood", "MQTT", 0, 0),
    "MQTT-DoS-Connect_Flood": ("MQTT-DoS-Connect_Flood", "MQTT", 0, 0),
    "MQTT-DoS-Publish_Flood": ("MQTT-DoS-Publish_Flood", "MQTT", 0, 0),
    "MQTT-Malformed_Data": ("MQTT-Malformed_Data", "MQTT", 0, 0),
    "Recon-OS_Scan": ("Recon-OS_Scan", "Recon", 0, 0),
    "Recon-Ping_Sweep": ("Recon-Ping_Sweep", "Recon", 0, 0),
    "Recon-Port_Scan": ("Recon-Port_Scan", "Recon", 0, 0),
    "Recon-VulScan": ("Recon-VulScan", "Recon", 0, 0),
    "ARP_Spoofing": ("ARP_Spoofing", "Spoofing", 0, 0),
}
FILES = [
    (f"{name}{part or ''}_{split}.pcap.csv", split, class19, class6)
    for name, (class19, class6, *parts) in OFFICIAL.items()
    for split, count in zip(("train", "test"), parts, strict=True)
    for part in (range(1, count + 1) if count else [0])
]


def test_the_official_release_has_51_train_and_21_test_files():
    assert [sum(split == s for _, split, _, _ in FILES) for s in ("train", "test")] == [51, 21]


@pytest.mark.parametrize(("file", "split", "class19", "class6"), FILES)
def test_an_official_file_name_gives_class_and_split(file, split, class19, class6):
    assert class19_of(file) == class19
    assert class6_of(class19_of(file)) == class6
    assert class2_of(class6_of(class19_of(file))) == ("Benign" if class6 == "Benign" else "Attack")
    assert split_of(file) == split


@pytest.mark.parametrize(
    ("label", "split"),
    [
        ("TCP_IP-DDoS-ICMP1_train", "train"),
        ("TCP_IP-DDoS-ICMP_test", "test"),
        ("TCP_IP-DDoS-ICMP12_train.pcap", "train"),
        ("TCP_IP-DDoS-ICMP3_test.pcap.parquet", "test"),
        ("DDoS-ICMP_train.csv", "train"),
        ("TCP_IP-DDoS-ICMP4.parquet", None),
        ("DDoS-ICMP", None),
    ],
)
def test_endings_part_numbers_and_prefix_are_not_part_of_the_class(label, split):
    assert class19_of(label) == "DDoS-ICMP"
    assert split_of(label) == split


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("Mirai_train.pcap.csv", "Mirai"),
        ("tcp_ip-ddos-icmp1_train", "tcp_ip-ddos-icmp"),
        ("DDoS", "DDoS"),
        ("MQTT-TCP_IP-DoS-SYN_test", "MQTT-TCP_IP-DoS-SYN"),
        ("", ""),
        ("train.csv", "train"),
    ],
)
def test_an_unknown_name_is_refused_with_what_was_found_and_expected(label, found):
    with pytest.raises(UnknownClass) as error:
        class19_of(label)
    assert str(error.value).startswith(f"{label!r} names no known class: found {found!r}, expected one of Benign, DDoS")
    assert "ARP_Spoofing; rename the file or label, or remove it from the source" in str(error.value)


def test_ids_are_the_ones_every_model_and_metric_was_written_with():
    assert {
        2: ("Benign", "Attack"),
        6: ("Benign", "DDoS", "DoS", "MQTT", "Recon", "Spoofing"),
        19: tuple(class19 for class19, *_ in OFFICIAL.values()),
    } == taxonomy.CLASSES
    assert taxonomy.LEVELS == (2, 6, 19)
    assert [taxonomy.CLASSES[level][taxonomy.BENIGN_ID] for level in (2, 6, 19)] == ["Benign"] * 3


@pytest.mark.parametrize(
    ("level", "coarser", "expected"),
    [
        (19, 19, range(19)),
        (19, 6, [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 5]),
        (19, 2, [0] + [1] * 18),
        (6, 6, range(6)),
        (6, 2, [0, 1, 1, 1, 1, 1]),
        (2, 2, [0, 1]),
    ],
)
def test_parents_map_every_id_to_its_coarser_id(level, coarser, expected):
    np.testing.assert_array_equal(parents(level, coarser), expected)


def test_mapping_through_6_classes_gives_the_same_2_classes():
    np.testing.assert_array_equal(parents(6, 2)[parents(19, 6)], parents(19, 2))


@pytest.mark.parametrize(("level", "finer"), [(2, 6), (2, 19), (6, 19)])
def test_a_class_has_no_parent_at_a_finer_level(level, finer):
    with pytest.raises(KeyError):
        parents(level, finer)


@pytest.mark.parametrize(("level", "expected"), [(19, (19, 6, 2)), (6, (6, 2)), (2, (2,))])
def test_levels_from_are_ordered_from_fine_to_coarse(level, expected):
    assert levels_from(level) == expected
