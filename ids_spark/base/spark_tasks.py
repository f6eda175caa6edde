"""Runs functions of this package as Spark tasks.

An `InputError` in a task is returned to the driver as a value and raised there. Raised in the task, Spark would run the
task again, up to four times, and print its stack trace before the one message that a user needs. Other errors are
raised in the task: Spark repeats it, because a machine may be at fault. A task whose Python has other packages than the
driver's ends with an `InputError`, too.
"""

import functools
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ids_spark.base import environment, process
from ids_spark.base.errors import InputError

if TYPE_CHECKING:
    from pyspark import SparkContext

Item = TypeVar("Item")
Result = TypeVar("Result")
Record = TypeVar("Record")


def balanced(items: Sequence[Item], tasks: int, load: Callable[[Item], int]) -> list[list[Item]]:
    """Distribute items over at most `tasks` lists of about equal load: largest first, to the list with the least."""
    lists: list[list[Item]] = [[] for _ in range(max(1, min(tasks, len(items))))]
    loads = [(0, i) for i in range(len(lists))]
    for item in sorted(items, key=lambda each: -load(each)):
        least, i = loads[0]
        lists[i].append(item)
        heapq.heapreplace(loads, (least + load(item), i))
    return lists


def run_each(spark_context: "SparkContext", items: Sequence[Item], do: Callable[[Item], Result]) -> list[Result]:
    """Return the result of a function for each item, in the order of the items; each item is one task.

    Raises:
        InputError: of the first task that ended with one, after the end of all tasks.
    """
    return _accepted(spark_context.parallelize(items, max(1, len(items))).map(_attempt(do)).collect())


def run_merged(
    spark_context: "SparkContext",
    items: Sequence[Item],
    do: Callable[[Item], Result],
    merge: Callable[[Result, Result], Result],
) -> Result:
    """Return the merged results of a function, which are merged on the executors; there must be an item.

    Raises:
        InputError: of one of the tasks.
    """

    def merged(a: Any, b: Any) -> Any:
        return next((each for each in (a, b) if isinstance(each, InputError)), None) or merge(a, b)

    [result] = _accepted([spark_context.parallelize(items, len(items)).map(_attempt(do)).treeReduce(merged)])
    return result


def run_shuffled(
    spark_context: "SparkContext",
    items: Sequence[Item],
    partitions: int,
    scatter: Callable[[Item], Iterable[tuple[int, Record]]],
    gather: Callable[[int, Iterable[Record]], Result],
) -> list[Result]:
    """Return the result of `gather` for each partition of a shuffle, in the order of the partitions.

    Args:
        spark_context: Its executors run the tasks.
        items: Each is one task of the first stage.
        partitions: Number of partitions.
        scatter: Yields the records of an item, each with the index of its partition.
        gather: Receives a partition's index and records, in no particular order.

    Raises:
        InputError: of one of the tasks, after the end of all tasks.
    """
    expected = environment.packages()

    def scattered(own: Iterable[Item]) -> Iterator[tuple[int, Record | InputError]]:
        process.begin()
        for item in own:
            try:
                environment.require(expected)
                yield from scatter(item)
            except InputError as error:
                yield 0, error

    def gathered(index: int, records: Iterable[tuple[int, Record | InputError]]) -> Iterator[Result | InputError]:
        refusals: list[InputError] = []

        def sound() -> Iterator[Record]:
            for _, record in records:
                if isinstance(record, InputError):
                    refusals.append(record)
                else:
                    yield record

        result = _attempt(functools.partial(gather, index))(sound())
        yield refusals[0] if refusals else result

    first = spark_context.parallelize(items, max(1, len(items))).mapPartitions(scattered)
    return _accepted(first.partitionBy(partitions, lambda target: target).mapPartitionsWithIndex(gathered).collect())


def _attempt(do: Callable[[Item], Result]) -> Callable[[Item], Result | InputError]:
    expected = environment.packages()

    def attempt(item: Item) -> Result | InputError:
        process.begin()
        try:
            environment.require(expected)
            return do(item)
        except InputError as error:
            return error

    return attempt


def _accepted(results: Iterable[Result | InputError]) -> list[Result]:
    accepted = []
    for result in results:
        if isinstance(result, InputError):
            raise result
        accepted.append(result)
    return accepted
