"""What TensorFlow's own converter makes of a pruned Keras model, as its guides show it."""

import contextlib
import io
import warnings
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.export import check, flatfile

KINDS = ("float32", "float16", "dynamic", "int8")


def stock_file(
    model: keras.Model, kind: str, sparse: bool, calibration: NDArray[Any]
) -> bytes | str:
    """The converter's file, or why there is none.

    Args:
        model: of one input and one output.
        kind: of ``KINDS``: how weights are stored.
        sparse: whether zeros are to be left out, by ``Optimize.EXPERIMENTAL_SPARSITY``.
        calibration: samples for ``"int8"``.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [] if kind == "float32" else [tf.lite.Optimize.DEFAULT]
    if sparse:
        converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        if any(isinstance(layer, keras.layers.RNN) for layer in model.layers):
            return "its calibration crashes on loops"
        converter.representative_dataset = lambda: ([x[None]] for x in calibration)
    try:
        # It prints what it saves, and warns that the input's range is taken from the samples.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return bytes(converter.convert())
    except Exception as error:  # the converter's are of many kinds
        return str(error)


def runnable(content: bytes) -> bytes:
    """A file of one input and one output, which are called ``x`` and ``y`` in this one."""
    model = flatfile.read(content)
    (signature,) = model.signatureDefs
    (signature.inputs[0].name,), (signature.outputs[0].name,) = [b"x"], [b"y"]
    return flatfile.write(model)


def samples_of(model: keras.Model, x: NDArray[Any]) -> check.Samples:
    """What ``runnable`` files are run on, one of ``x`` at a time, and held against."""
    y = keras.ops.convert_to_numpy(model(x, training=False))
    rows: list[list[NDArray[Any]]] = [[row[None]] for row in np.asarray(x)]
    return check.Samples(("x",), ("y",), rows, [[row[None]] for row in y])
