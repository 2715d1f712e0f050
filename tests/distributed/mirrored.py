"""Trains on one device and on several logical ones, under TensorFlow's ``MirroredStrategy``.

Arguments: how many devices, the optimizer, and the callbacks or ``compress``.
"""

import json
import sys
from typing import Any

import keras
from numpy.typing import NDArray
from parts import compared, compressed, fitted, net

from keras_l0 import shrink
from keras_l0.models import copy_of


def copies(variable: keras.Variable) -> list[NDArray[Any]]:
    """The value on each replica."""
    return [one.numpy() for one in getattr(variable.value, "values", [variable.value])]


def main() -> None:
    """Prints a line for each callback."""
    import tensorflow as tf

    number, optimizer, *callbacks = sys.argv[1:]
    (cpu,) = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * int(number)
    tf.config.set_logical_device_configuration(cpu, logical)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{place}" for place in range(int(number))])

    def mirrored() -> keras.Model:
        with strategy.scope():
            # Keras takes a batch's statistics on each replica by itself: no normalization here.
            return net(optimizer, normalized=False)

    for callback in callbacks:
        model = net(optimizer, normalized=False)
        if callback == "copy":
            found = [copy_of(mirrored()), shrink(mirrored())]
            print(json.dumps({"copies": [len(copies(one.layers[0].kernel)) for one in found]}))
        elif callback == "compress":
            pair = compressed(model, copies), compressed(mirrored(), copies)
            print(json.dumps(compared(*pair)))
        else:
            pair = fitted(model, callback, copies), fitted(mirrored(), callback, copies)
            print(json.dumps(compared(*pair)))


if __name__ == "__main__":
    main()
