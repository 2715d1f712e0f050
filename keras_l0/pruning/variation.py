"""How much a model's outputs vary between samples, before pruning and after."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.trainers import data_adapters  # the only reader of all forms of data
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.data_adapters.generator_data_adapter import GeneratorDataAdapter
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
from keras.src.trainers.data_adapters.torch_data_loader_adapter import TorchDataLoaderAdapter

from keras_l0.models import has_own_test

_SAMPLES = 64
_BATCHES = 16  # that these samples are taken from
_OF_BEFORE = 0.05
"""The share of the standard deviation before pruning below which outputs hardly vary."""
_ROUNDING = 2 * float(np.finfo(np.float32).eps)
"""The standard deviation, beside the largest value, up to which outputs are the same."""


class Variation:
    """The standard deviation of each output over some samples, the largest of all its entries.

    Args:
        samples: inputs of the model, as it takes them.
    """

    def __init__(self, samples: Any) -> None:
        self._samples = keras.tree.map_structure(ops.convert_to_tensor, samples)
        self._count = len(keras.tree.flatten(samples)[0])
        self._before: list[float] | None = None
        self._loss = np.inf

    def note(self, model: keras.Model, loss: float) -> None:
        """Notes how much the outputs vary, and the validation loss, before pruning."""
        self._before = [spread for spread, _ in self._measure(model)]
        self._loss = loss

    def lost(self, model: keras.Model, loss: float) -> list[str]:
        """What shows that the outputs do not vary any more, or hardly.

        Outputs that have a twentieth of the standard deviation before count only if the loss did
        not fall: training may have made them smaller.

        Args:
            model: the pruned model.
            loss: its validation loss, without penalties on weights.

        Returns:
            A sentence for each output, without a full stop.
        """
        found = []
        for place, (spread, largest) in enumerate(self._measure(model)):
            before = self._before[place] if self._before else np.inf
            if spread <= _ROUNDING * largest < before:
                found.append(f"output {place} is the same for each of {self._count} samples")
            elif spread < _OF_BEFORE * before < np.inf and not loss < self._loss:
                found.append(
                    f"output {place} hardly varies between validation samples: its standard "
                    f"deviation is {spread:.2g}, and was {before:.2g} before pruning"
                )
        return found

    def _measure(self, model: keras.Model) -> list[tuple[float, float]]:
        """For each output the standard deviation, and the largest value; none if it fails."""
        try:
            with keras.StatelessScope():  # what the model counts or draws stays as it is
                outputs = keras.tree.flatten(model(self._samples, training=False))
            arrays = [ops.convert_to_numpy(ops.cast(y, "float32")) for y in outputs]
        except Exception:  # a check on the side is no reason to end a training
            return []
        with np.errstate(all="ignore"):  # what is not finite varies as NaN, and that is not little
            return [
                (float(y.std(axis=0).max(initial=0.0)), float(np.abs(y).max(initial=0.0)))
                for y in arrays
            ]


def of_data(model: keras.Model, data: dict[str, Any], batch_size: int | None) -> Variation | None:
    """How much the outputs vary between samples of some data.

    Args:
        model: a built model.
        data: ``x`` and what goes with it, as ``keras_l0.data.unpack`` gives them.
        batch_size: of arrays.

    Returns:
        Nothing noted yet; ``None`` where samples cannot be taken, as in ``of_validation``.
    """
    if has_own_test(model) or isinstance(data["x"], Iterator):
        return None
    return _of_adapter(data_adapters.get_data_adapter(batch_size=batch_size or 32, **data))


def of_validation(model: keras.Model) -> Variation | None:
    """How much the outputs vary between samples that the running ``fit`` validates on.

    Returns:
        Nothing noted yet; ``None`` where there are no validation data, samples are all alike or no
        numbers, the model has a ``test_step`` of its own, which may take other inputs, or reading
        would use the data up.
    """
    iterator = getattr(model, "_eval_epoch_iterator", None)
    if iterator is None or has_own_test(model):
        return None
    return _of_adapter(iterator.data_adapter)


def _of_adapter(adapter: Any) -> Variation | None:
    if isinstance(adapter, GeneratorDataAdapter):
        return None
    try:
        samples = _sampled(adapter)
    except Exception:  # what cannot be read is told by Keras, if it has to be read
        return None
    arrays = keras.tree.flatten(samples)
    numeric = all(array.dtype.kind not in "OSU" for array in arrays)
    varies = numeric and any((array != array[:1]).any() for array in arrays)
    return Variation(samples) if varies else None


def _sampled(adapter: Any) -> Any:
    """Samples, in the structure that the model takes."""
    found = []
    with _same_randomness(adapter):
        for batch in _batches(adapter):
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            found.append(keras.tree.map_structure(np.asarray, x))
    shapes = [[array.shape[1:] for array in keras.tree.flatten(x)] for x in found]
    if any(shape != shapes[0] for shape in shapes):  # as texts of unlike lengths have
        found = found[:1]
    each = max(1, _SAMPLES // len(found))
    return keras.tree.map_structure(
        lambda *parts: np.concatenate([part[_places(len(part), each)] for part in parts]), *found
    )


def _batches(adapter: Any) -> Iterator[Any]:
    """Some batches: from all over the data, or where that would read them all, the first."""
    count = adapter.num_batches
    spread = set(_places(count or _BATCHES, _BATCHES))
    if isinstance(adapter, PyDatasetAdapter):  # by its iterator its workers would go on
        yield from (adapter.py_dataset[place] for place in sorted(spread))
        return
    limit = count if isinstance(adapter, ArrayDataAdapter) else _BATCHES
    wanted = spread if isinstance(adapter, ArrayDataAdapter) else range(_BATCHES)
    for place, batch in zip(range(limit), adapter.get_numpy_iterator(), strict=False):
        if place in wanted:
            yield batch


def _places(size: int, count: int) -> list[int]:
    """So many places of ``size``, or all, evenly spread."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).round().astype(int)).tolist()


def _same_randomness(adapter: Any) -> contextlib.AbstractContextManager[Any]:
    """A ``DataLoader`` draws from PyTorch's generator: the training then goes on from it."""
    if not isinstance(adapter, TorchDataLoaderAdapter):
        return contextlib.nullcontext()
    import torch

    return torch.random.fork_rng(devices=[])
