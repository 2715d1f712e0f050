"""One of several processes that train together on JAX; Keras takes which from the environment.

Each also trains alone, to compare. Arguments: the optimizer and the callbacks.
"""

import json
import sys
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from parts import BATCH, compared, data, fitted, net


def copies(variable: keras.Variable) -> list[NDArray[Any]]:
    """The value on the one device of this process."""
    return [np.asarray(variable.value)]


def main() -> None:
    """Prints a line for each callback."""
    keras.distribution.initialize()
    import jax

    optimizer, *callbacks = sys.argv[1:]
    place, number = jax.process_index(), jax.process_count()
    part = BATCH // number
    mine = [slice(at, at + part) for at in range(place * part, len(data()[0]), BATCH)]
    x, y = ([array[one] for one in mine] for array in data())
    share = {"x": np.concatenate(x), "y": np.concatenate(y), "batch_size": part}
    for callback in callbacks:
        keras.distribution.set_distribution(None)
        alone = fitted(net(optimizer), callback, copies)
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
        together = fitted(net(optimizer), callback, copies, **share)
        print(json.dumps({"process": place, "of": number, **compared(alone, together)}))


if __name__ == "__main__":
    main()
