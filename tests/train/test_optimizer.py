"""Adam over a flat vector takes the steps that Keras' own takes weight by weight."""

import numpy as np
import pytest
import tensorflow as tf

from ids_spark.train.optimizer import FlatAdam

SHAPES = [(4, 3), (3,), (), (2, 3, 2)]


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
def test_steps_are_those_of_keras(scale: float) -> None:
    rng = np.random.default_rng(5)
    first = [np.float32(rng.normal(size=shape)) for shape in SHAPES]
    own, keras = ([tf.Variable(value) for value in first] for _ in range(2))

    rate = tf.keras.optimizers.schedules.InverseTimeDecay(0.01, 1, 1.0)
    optimizer, oracle = FlatAdam(own, rate), tf.keras.optimizers.Adam(rate)
    for step in range(40):
        gradients = [np.float32(scale * rng.normal(size=shape)) for shape in SHAPES]
        if step % 7 == 0:
            gradients = [np.zeros_like(gradient) for gradient in gradients]
        optimizer.apply(tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0))
        oracle.apply_gradients(zip(gradients, keras, strict=True))
    for start, a, b in zip(first, own, keras, strict=True):
        np.testing.assert_allclose(a.numpy() - start, b.numpy() - start, rtol=1e-4, atol=1e-6)
        assert np.abs(a.numpy() - start).min() > 1e-5
    assert int(optimizer.variables[0]) == 40
