"""Training and evaluation steps of one rank: forward and backward pass, one allreduce, one update."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ids_spark.config.train import TrainConfig
from ids_spark.train.checkpoint import Arrays
from ids_spark.train.data_loader import LoadedRows
from ids_spark.train.optimizer import FlatAdam
from ids_spark.train.ranks import Ranks


class Schedule(tf.keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Learning rate by step: a linear warm-up, then constant or a cosine decay to 0.

    The decay is that of Keras, the warm-up is not: in Keras the learning rate of the first step is 0, so that this step
    changes nothing; here it is peak / warm-up steps.

    Args:
        config: Training settings.
        steps_per_epoch: Steps of each rank in an epoch.
    """

    def __init__(self, config: TrainConfig, steps_per_epoch: int) -> None:
        self._peak = config.peak_learning_rate
        self._warmup = config.warmup_epochs * steps_per_epoch
        decay_steps = max(1.0, config.epochs * steps_per_epoch - self._warmup)
        cosine = tf.keras.optimizers.schedules.CosineDecay(self._peak, decay_steps)
        self._decay = cosine if config.schedule == "cosine" else None

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of step 0, 1, …"""
        step = tf.cast(step, tf.float32)
        rate = tf.constant(self._peak, tf.float32)
        if self._decay:
            rate = self._decay(tf.maximum(step - self._warmup, 0.0))
        if self._warmup:
            rate = tf.minimum(rate, self._peak * (step + 1.0) / self._warmup)
        return rate


class TrainSteps:
    """The compiled training and evaluation steps of one rank for one model.

    Args:
        ranks: This rank and the others.
        model: Uncompiled Keras model; this rank's copy.
        config: Training settings.
        n_classes: Outputs of the model.
        ensemble_size: Networks in the model. Above 1 it returns (batch, ensemble_size, n_classes) in training.
        steps_per_epoch: Steps of each rank in an epoch.
        seed: Seed of dropout.
        row_weights: Weights in the loss of a row of the data set, and of a local one that is alone in its group; the
            latter times n ** -1/2 in a group of n rows. If given, blocks have the column `local` after the features.
            The mean over all train rows is 1, so that the loss is a weighted mean and does not depend on the number of
            ranks.
    """

    def __init__(
        self,
        ranks: Ranks,
        model: Any,
        config: TrainConfig,
        n_classes: int,
        ensemble_size: int,
        steps_per_epoch: int,
        seed: int,
        row_weights: tuple[float, float] | None = None,
    ) -> None:
        self._ranks, self._row_weights = ranks, row_weights
        self._model, self._config, self._n_classes, self._ensemble_size = model, config, n_classes, ensemble_size
        self._steps_per_epoch, self._seed = steps_per_epoch, seed
        self._logits = tf.keras.Model(model.inputs, model.get_layer("logits").output)
        self._optimizer = FlatAdam(model.trainable_variables, Schedule(config, steps_per_epoch))
        self._batch = config.batch_size // ranks.size
        features = tf.TensorSpec((None, model.input_shape[1]), tf.float32)
        columns = tf.TensorSpec((None, model.input_shape[1] + (row_weights is not None)), tf.float32)
        rows = (columns, tf.TensorSpec((None,), tf.int32))
        self._train_steps = tf.function(self._take_steps, input_signature=rows)
        self._evaluate = tf.function(self._sums, input_signature=rows)
        self._forward = tf.function(lambda x: model(x, training=False), input_signature=(features,))
        self._gradients = tf.function(self._loss_and_gradients, jit_compile=config.xla)

    def weights(self) -> Arrays:
        """Return copies of all weights of the model, in Keras order."""
        copies: Arrays = self._model.get_weights()
        return copies

    def optimizer_state(self) -> Arrays:
        """Return copies of the optimizer's variables."""
        return [variable.numpy() for variable in self._optimizer.variables]

    def restore(self, weights: Arrays, optimizer: Arrays) -> None:
        """Set weights and optimizer state, as `weights` and `optimizer_state` return them."""
        self._model.set_weights(weights)
        for variable, value in zip(self._optimizer.variables, optimizer, strict=True):
            variable.assign(value)

    def broadcast(self) -> None:
        """Set the weights and optimizer state of every rank to those of rank 0."""
        self._ranks.broadcast([*self._model.variables, *self._optimizer.variables])

    def begin_epoch(self, epoch: int) -> None:
        """Seed dropout by seed, epoch and rank only, so that a resumed run draws the same random numbers."""
        for i, layer in enumerate(self._model.layers):
            generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
            if generator is not None:
                generator.reset_from_seed(((self._seed * 1_000 + epoch) * 1_000 + self._ranks.rank) * 100 + i)

    @property
    def block_sizes(self) -> list[int]:
        """Rows of each block that `train` takes: `steps_per_execution` steps, in the last block possibly fewer."""
        batch, steps = self._batch, min(self._config.steps_per_execution, self._steps_per_epoch)
        whole, rest = divmod(self._steps_per_epoch, steps)
        return [batch * steps] * whole + ([batch * rest] if rest else [])

    def train(self, blocks: Iterator[LoadedRows]) -> float:
        """Run the steps of an epoch; return the mean loss over steps and ranks."""
        total = sum(float(self._train_steps(*block)) for block in blocks)
        self._average_statistics()
        mean = tf.constant(total / self._steps_per_epoch, tf.float64)
        return float(self._ranks.mean(mean, "loss"))

    def evaluate(self, blocks: Iterator[LoadedRows]) -> dict[str, float]:
        """Return loss, a weighted mean as in training, and accuracy over the rows of all ranks."""
        sums = np.sum([self._evaluate(*block).numpy() for block in blocks], axis=0)
        loss, weight, right, count = self._ranks.total(tf.constant(sums), "validation").numpy()
        return {"validation_loss": float(loss / weight), "validation_accuracy": float(right / count)}

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return class probabilities of scaled features, shape (rows, classes)."""
        found: NDArray[np.float32] = self._forward(features).numpy()
        return found

    def _take_steps(self, columns: Any, labels: Any) -> Any:
        total, batch = tf.constant(0.0), self._batch
        for step in tf.range(tf.size(labels) // batch):
            at = step * batch
            x = tf.ensure_shape(columns[at : at + batch], (batch, columns.shape[1]))
            loss, gradient = self._gradients(x, tf.ensure_shape(labels[at : at + batch], (batch,)))
            self._optimizer.apply(self._ranks.mean(gradient, "gradients"))  # one message, for any number of layers
            total += loss
        return total

    def _loss_and_gradients(self, columns: Any, labels: Any) -> tuple[Any, Any]:
        features, weights = self._parts(columns)
        with tf.GradientTape() as tape:
            losses = self._training_losses(labels, self._logits(features, training=True))
            if weights is not None:
                losses *= tf.reshape(weights, (-1, *[1] * (losses.shape.rank - 1)))
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self._model.trainable_variables, unconnected_gradients="zero")
        return loss, tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)

    def _sums(self, columns: Any, labels: Any) -> Any:
        features, weights = self._parts(columns)
        predicted = self._model(features, training=False)
        right = tf.equal(tf.argmax(predicted, axis=1, output_type=tf.int32), labels)
        if self._config.loss == "one_hot":
            losses = tf.keras.losses.categorical_crossentropy(tf.one_hot(labels, self._n_classes), predicted)
        else:
            losses = tf.keras.losses.sparse_categorical_crossentropy(labels, predicted)
        parts = (
            tf.reduce_sum(losses if weights is None else losses * weights),
            tf.size(labels) if weights is None else tf.reduce_sum(weights),
            tf.reduce_sum(tf.cast(right, tf.float32)),
            tf.size(labels),
        )
        return tf.stack([tf.cast(part, tf.float64) for part in parts])

    def _parts(self, columns: Any) -> tuple[Any, Any]:
        """Return the features and the weight of each row; None if all rows weigh the same."""
        if self._row_weights is None:
            return columns, None
        of_data_set, of_local = self._row_weights
        rows = columns[:, -1]
        weights = tf.where(rows > 0, of_local * tf.math.rsqrt(tf.maximum(rows, 1.0)), of_data_set)
        return columns[:, :-1], weights

    def _training_losses(self, labels: Any, logits: Any) -> Any:
        """Return the loss of each row, shape (batch,), or of each row and network, shape (batch, ensemble_size)."""
        smoothing = self._config.label_smoothing
        low = smoothing / self._n_classes
        target = tf.one_hot(labels, self._n_classes, on_value=1.0 - smoothing + low, off_value=low)
        if self._ensemble_size > 1:
            target = target[:, tf.newaxis]
        return _cross_entropy(logits, target)

    def _average_statistics(self) -> None:
        """Average over ranks the statistics of layers (moving moments of batch normalisation)."""
        for i, variable in enumerate(self._model.non_trainable_variables):
            if variable.dtype.is_floating:
                variable.assign(self._ranks.mean(variable, f"statistics.{i}"))


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _cross_entropy(logits: Any, target: Any) -> tuple[Any, Any]:
    """Return -Σ target · ln softmax(logits) over the last axis, where the targets sum to 1.

    With matrix operations it takes half the time of TensorFlow's operation for integer labels.
    """
    shifted = logits - tf.reduce_max(logits, axis=-1, keepdims=True)
    exponentials = tf.exp(shifted)
    total = tf.reduce_sum(exponentials, axis=-1, keepdims=True)

    def gradient(of_losses: Any) -> tuple[Any, None]:
        return (exponentials / total - target) * of_losses[..., tf.newaxis], None

    return tf.math.log(total)[..., 0] - tf.reduce_sum(shifted * target, axis=-1), gradient
