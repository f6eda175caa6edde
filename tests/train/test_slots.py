"""The number of ranks that `train.ranks: auto` chooses."""

import pytest

from ids_spark.train.slots import best_ranks


@pytest.mark.parametrize(
    ("batch_size", "products", "most", "expected"),
    [
        (64, 15_000, 8, 1),  # 0.1 ms of computation, 2.3 ms for each doubling
        (1_024, 15_000, 8, 1),  # 1.8 ms; two ranks: 0.9 + 2.3
        (8_192, 15_000, 2, 2),  # 14.7 ms; two ranks: 7.4 + 2.3
        (8_192, 15_000, 8, 4),  # four: 3.7 + 4.6; eight: 1.8 + 6.9
        (128, 2_500_000, 2, 2),  # an ensemble: 38 ms; two ranks: 19 + 2.3
        (8_193, 15_000, 2, 1),  # two do not divide it
        (8_193, 15_000, 3, 3),
        (8_192, 15_000, 0, 1),
    ],
)
def test_the_number_of_ranks_with_the_shortest_step_is_chosen(
    batch_size: int, products: int, most: int, expected: int
) -> None:
    assert best_ranks(batch_size, products, most) == expected
