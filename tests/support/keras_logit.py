"""The attack logit of a Keras network and its gradients by TensorFlow, to compare those of `models.network` with."""

import numpy as np
import tensorflow as tf


def attack_logit(model, values, ensemble_size):
    """Return the attack logit for the values that the first layer of a model takes, shape (rows,)."""
    outputs = {layer.name: layer.output for layer in model.layers}
    encoded, logits = outputs.get("encoded", model.input), outputs["logits"]
    each = tf.reshape(tf.keras.Model(encoded, logits)(values, training=False), (-1, ensemble_size, logits.shape[-1]))
    of_class = tf.reduce_logsumexp(tf.nn.log_softmax(each), axis=1)
    return tf.reduce_logsumexp(of_class[:, 1:], axis=1) - of_class[:, 0]


def encoded(model, matrix):
    """Return the values that the first layer of a model takes."""
    outputs = {layer.name: layer.output for layer in model.layers}
    if "encoded" not in outputs:
        return tf.convert_to_tensor(matrix)
    return tf.keras.Model(model.input, outputs["encoded"])(matrix)


def mean_gradient(model, baseline, matrix, ensemble_size, steps):
    """Return the mean gradient of the attack logit at the midpoints of lines from a baseline to each flow."""
    start, ends = encoded(model, baseline[None]), encoded(model, matrix)
    shares = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    points = tf.reshape(start + shares[:, None, None] * (ends - start), (-1, ends.shape[-1]))
    with tf.GradientTape() as tape:
        tape.watch(points)
        logit = attack_logit(model, points, ensemble_size)
    gradient = tf.reshape(tape.gradient(logit, points), (steps, *ends.shape))
    return tf.reduce_mean(gradient, axis=0).numpy()
