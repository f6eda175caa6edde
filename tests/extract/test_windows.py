"""Windows and their features, compared with the same computed packet by packet."""

import random
from collections.abc import Sequence

import pytest

from ids_spark.dataset.features import RELEASE_39
from ids_spark.extract.devices import Devices
from ids_spark.extract.windows import Windower, Windows
from tests.support import packet_reference as reference
from tests.support import random_captures
from tests.support.packet_reference import Seen, Window, as_packets

NETWORKS = ("10.0.0.0/8", "192.168.1.0/24")
DEVICE = reference.device_in(NETWORKS)


def computed(
    packets: Sequence[Seen | None], n: int, by_device: bool = True, cuts: Sequence[int] = ()
) -> tuple[list[Windows], int]:
    """Return the windows of packets that come in several chunks, and how many packets are single."""
    windower = Windower(n, by_device)
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(packets)], strict=True):
        columns = as_packets(packets[begin:end])
        found += windower.add(columns, Devices(NETWORKS).keys(columns))
    return found + windower.close(), len(windower.single)


def as_reference(found: Sequence[Windows]) -> list[Window]:
    return [
        Window(
            dict(zip(RELEASE_39.features, windows.features[:, i].tolist(), strict=True)),
            int(windows.packets[i]),
            int(windows.nanos[i]),
            int(windows.device[i]),
            int(windows.source[i]) if windows.source_known[i] else None,
            int(windows.source_mac[i]),
            int(windows.target[i]),
        )
        for windows in found
        for i in range(len(windows))
    ]


def require_equal(found: tuple[list[Windows], int], expected: tuple[list[Window], int]) -> None:
    def order(window: Window) -> tuple[object, ...]:
        return window.nanos, window.device, *window.features.values()

    assert found[1] == expected[1], "single packets"
    ours, theirs = sorted(as_reference(found[0]), key=order), sorted(expected[0], key=order)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for name in RELEASE_39.features:
            assert mine.features[name] == pytest.approx(other.features[name], rel=1e-9, abs=0), name
        assert (mine.packets, mine.device, mine.source, mine.source_mac, mine.target) == (
            other.packets,
            other.device,
            other.source,
            other.source_mac,
            other.target,
        )


@pytest.mark.parametrize("seed", range(200))
def test_every_column_is_that_of_the_scalar_formulas(seed: int) -> None:
    draw = random.Random(seed)
    packets = [reference.seen(packet) for packet in random_captures.capture(draw, draw.randrange(250))]
    visible = [packet for packet in packets if packet is not None]
    n, by_device = (10, 100, 2, 3)[seed % 4], bool(seed % 3)
    cuts = sorted(draw.randrange(len(packets) + 1) for _ in range(seed % 5))
    require_equal(computed(packets, n, by_device, cuts), reference.windows(visible, n, DEVICE, by_device))
