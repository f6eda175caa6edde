"""The usual single-machine way to train: Keras, `model.fit` on arrays in memory, every core of the bench.

    python -m tests.bench.baseline_keras LAKE STATEMENT BATCH EPOCHS MODEL …

Reads what this project's own preprocessing wrote, so that both train on the same numbers, and builds the same networks.
Writes STATEMENT: for each model what `train_figures.Statement` holds. The time of an epoch runs from the end of the one
before it, so that the work of Keras between epochs is included; there is no validation.

Settings are the fastest of those tried on 2 cores, for both networks at batches of 64, 1,024 and 8,192:
`steps_per_execution=32` (1: three quarters of its rows/s), numpy arrays (tensors: the same), no XLA (`jit_compile=True`
was slower for the GRU-DNN, the same for the DNN), no metrics. TensorFlow uses its default number of threads: all cores.
"""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Final

import tensorflow as tf

from ids_spark.config.train import TrainConfig
from ids_spark.models import architectures
from tests.bench.train_figures import CLASSES, LEARNING_RATE, SEED, arrays, parameters

STEPS_PER_EXECUTION: Final = 32


def main(lake: str, statement: str, batch: int, epochs: int, names: list[str]) -> None:
    """Train each model with new weights and write its statement."""
    features, labels = arrays(lake)
    steps = len(labels) // batch
    features, labels = features[: steps * batch], labels[: steps * batch]  # a smaller last batch would be traced again
    stated = {}
    for name in names:
        tf.keras.backend.clear_session()
        tf.keras.utils.set_random_seed(SEED)
        hyperparameters = getattr(TrainConfig(), name).model_dump()
        model = architectures.build(name, features.shape[1], CLASSES, hyperparameters)
        model.compile(
            optimizer=tf.keras.optimizers.Adam(LEARNING_RATE),
            loss="sparse_categorical_crossentropy",
            steps_per_execution=min(STEPS_PER_EXECUTION, steps),
        )
        ends = [time.monotonic()]
        ended = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda *_, ends=ends: ends.append(time.monotonic()))
        fitted = model.fit(
            features, labels, batch_size=batch, epochs=epochs, shuffle=True, verbose=0, callbacks=[ended]
        )
        stated[name] = {
            "parameters": parameters(model),
            "steps_per_epoch": steps,
            "batch_size": batch,
            "losses": fitted.history["loss"],
            "seconds": [after - before for before, after in itertools.pairwise(ends)],
        }
    Path(statement).write_text(json.dumps(stated))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
