"""This project's data loader without training: every rank is a process that discards its rows.

    python -m tests.bench.data_loader_alone LAKE STATEMENT RANKS BATCH EPOCHS

Each rank reads the blocks of a training run, from one stream over all epochs; the first epoch reads the files.
Ranks start an epoch together, and an epoch lasts as long as its slowest rank. Writes STATEMENT: rows and seconds of
each epoch.
"""

import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from ids_spark.config.train import TrainConfig
from ids_spark.train import data_loader
from tests.bench.train_figures import LABEL, SEED, columns, train_rows


def drain(
    lake: str, rank: int, ranks: int, batch: int, epochs: int, start: Barrier, results: "Queue[list[float]]"
) -> None:
    """Take one rank's batches of `batch` rows, epoch after epoch, and return the seconds of each."""
    shard = data_loader.Shard(
        f"file://{lake}/features/paper/split=train", columns(lake), LABEL, rank, ranks, train_rows(lake)
    )
    steps = train_rows(lake) // (batch * ranks)
    block = min(TrainConfig().steps_per_execution, steps)
    sizes = [batch * min(block, steps - taken) for taken in range(0, steps, block)]
    seconds = []
    seeds = (SEED * 1_000 + epoch for epoch in range(1, epochs + 1))
    memory = TrainConfig().cache_memory_mb * 1_000_000
    try:
        with data_loader.read_ahead(data_loader.epochs(shard, sizes, seeds, memory)) as blocks:
            for epoch in range(1, epochs + 1):
                start.wait()
                begin = time.monotonic()
                rows = _drained(itertools.islice(blocks, len(sizes)), batch)
                seconds.append(time.monotonic() - begin)
                if rows != steps * batch:
                    raise RuntimeError(f"rank {rank} got {rows} rows in epoch {epoch}, expected {steps * batch}")
    except BaseException:
        start.abort()  # the others would wait for this rank
        raise
    results.put(seconds)


def _drained(blocks: Iterator[data_loader.LoadedRows], batch: int) -> int:
    """Return the rows of an epoch's batches."""
    return sum(len(features[at : at + batch]) for features, _ in blocks for at in range(0, len(features), batch))


def main(lake: str, statement: str, ranks: int, batch: int, epochs: int) -> None:
    """Run all ranks at once."""
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(ranks), spawn.Queue()
    processes = [
        spawn.Process(target=drain, args=(lake, rank, ranks, batch, epochs, start, results)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("a rank failed, see above")
    slowest = [max(of_ranks) for of_ranks in zip(*(results.get() for _ in processes), strict=True)]
    rows = train_rows(lake) // (batch * ranks) * batch * ranks
    Path(statement).write_text(json.dumps({"rows": rows, "seconds": slowest}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(int(argument) for argument in sys.argv[3:]))
