"""What a model takes: its inputs' names, shapes and types, and samples of them."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument
from keras_l0.export.domains import Domain, input_domains
from keras_l0.text import listed

# Enough to find a wrong output, few enough to be run one by one.
LARGEST_SAMPLE_COUNT = 256
_RANDOM_SAMPLE_COUNT = 16
# Stands for an open dimension (a sequence's length, an image's side) in random samples.
_OPEN_SIZE = 32

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class ModelInputs:
    """The inputs of a model, flat, and how to pack them again.

    Attributes:
        names: one for each input.
        shapes: with the batch; ``None`` where a size is open.
        dtypes: as Keras names them.
        structure: as the model takes it, with the inputs' positions in place of tensors.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    dtypes: tuple[str, ...]
    structure: Any

    @property
    def batch(self) -> int:
        """Samples that the exported file takes at once: 1, or what the model is fixed to."""
        return self.shapes[0][0] or 1

    def pack(self, flat: list[Any]) -> Any:
        """The structure that the model takes, made of these tensors."""
        return keras.tree.map_structure(lambda position: flat[position], self.structure)


def read_inputs(
    model: keras.Model, check_data: Any, argument: str = "check_data"
) -> tuple[ModelInputs, list[Arrays]]:
    """The model's inputs, and samples of them cut into batches for the exported file.

    Args:
        model: a built model. One without ``inputs`` (a subclassed one) takes its shapes
            from ``check_data``.
        check_data: what Keras takes for ``x``, or ``None`` for random samples with a fixed
            seed, of the values that ``input_domains`` finds; where it finds none, standard
            normal, or 0 and 1 for integers, which are in every vocabulary.
        argument: what the caller calls ``check_data``, for errors.

    Returns:
        The inputs; and for each batch a list with an array for each input.

    Raises:
        ValueError: if ``check_data`` is missing though needed, or does not fit.
    """
    declared = _declared_inputs(model)
    if check_data is None:
        if declared is None:
            raise invalid_argument(
                "check_data",
                "samples, since the model does not tell its input shapes",
                None,
                "Give a batch of the model's inputs.",
            )
        return declared, _random_batches(declared, input_domains(model))
    pieces = _flat_pieces(check_data, declared, argument)
    inputs = declared or _inputs_of(pieces[0])
    flat = [keras.tree.flatten(piece) for piece in pieces]
    for piece in flat:
        _require_fit(piece, inputs, argument)
    if len({tuple(array.shape[1:] for array in piece) for piece in flat}) > 1:
        raise invalid_argument(
            argument,
            "batches of the same shape but for their length",
            [[array.shape for array in piece] for piece in flat],
        )
    arrays = [
        np.concatenate([piece[i] for piece in flat])[:LARGEST_SAMPLE_COUNT].astype(dtype)
        for i, dtype in enumerate(inputs.dtypes)
    ]
    for name, array in zip(inputs.names, arrays, strict=True):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise invalid_argument(argument, "finite numbers", f"NaN or infinite ones for {name}")
    count = len(arrays[0]) // inputs.batch * inputs.batch
    if count == 0:
        raise invalid_argument(
            argument, f"at least {inputs.batch} samples", f"{len(arrays[0])} samples"
        )
    return inputs, [
        [array[start : start + inputs.batch] for array in arrays]
        for start in range(0, count, inputs.batch)
    ]


def unique(names: list[str]) -> tuple[str, ...]:
    """The names, with a number after each that was taken: a signature needs them to differ."""
    taken: list[str] = []
    for name in names:
        numbered = (f"{name}_{i}" for i in itertools.count(1))
        taken.append(next(n for n in itertools.chain([name], numbered) if n not in taken))
    return tuple(taken)


def output_names(model: keras.Model, result: Any) -> tuple[str, ...]:
    """The names of a model's outputs, one for each tensor that it gave."""
    paths = [path for path, _ in keras.tree.flatten_with_path(result)]
    names = getattr(model, "output_names", None)
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    if not names or len(names) != len(paths):
        names = ["_".join(map(str, path)) if path else "output" for path in paths]
        names = [f"output_{name}" if name.isdigit() else name for name in names]
    return unique(names)


def _declared_inputs(model: keras.Model) -> ModelInputs | None:
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return None
    functional = not isinstance(model, keras.Sequential)
    structure = model.input if functional else tensors[0]
    position = {id(tensor): i for i, tensor in enumerate(tensors)}
    return ModelInputs(
        names=unique([tensor.name for tensor in tensors]),
        shapes=tuple(tuple(tensor.shape) for tensor in tensors),
        dtypes=tuple(keras.backend.standardize_dtype(tensor.dtype) for tensor in tensors),
        structure=keras.tree.map_structure(lambda tensor: position[id(tensor)], structure),
    )


def _inputs_of(batch: Any) -> ModelInputs:
    arrays = keras.tree.flatten(batch)
    positions = iter(range(len(arrays)))
    paths = [path for path, _ in keras.tree.flatten_with_path(batch)] if len(arrays) > 1 else [()]
    return ModelInputs(
        names=unique(["_".join(["input", *map(str, path)]) for path in paths]),
        shapes=tuple((None, *array.shape[1:]) for array in arrays),
        dtypes=tuple(
            # As Keras takes NumPy's default types: float64 for floatx, int64 for int32.
            {"f": keras.config.floatx(), "i": "int32"}.get(array.dtype.kind, array.dtype.name)
            for array in arrays
        ),
        structure=keras.tree.map_structure(lambda _: next(positions), batch),
    )


def _random_batches(inputs: ModelInputs, domains: list[Domain | None]) -> list[Arrays]:
    rng = np.random.default_rng(0)
    told = domains or [None] * len(inputs.names)

    def sample(shape: tuple[int | None, ...], dtype: str, domain: Domain | None) -> NDArray[Any]:
        full = (inputs.batch, *(size or _OPEN_SIZE for size in shape[1:]))
        if domain is not None:
            values = domain.sample(rng, full)
            return (values if "float" in dtype else np.rint(values)).astype(dtype)
        if "float" in dtype:
            return rng.normal(size=full).astype(dtype)
        return rng.integers(0, 2, size=full).astype(dtype)

    return [
        list(map(sample, inputs.shapes, inputs.dtypes, told)) for _ in range(_RANDOM_SAMPLE_COUNT)
    ]


def described(model: keras.Model, inputs: ModelInputs, count: int, argument: str | None) -> str:
    """What a file is compared on, such as ``"16 random samples (ids 0 to 39)"``.

    Args:
        model: the model.
        inputs: its inputs.
        count: how many samples.
        argument: which argument they came from; ``None`` if they are random.
    """
    if argument is not None:
        return f"{count} samples of `{argument}`"
    domains = input_domains(model) or [None] * len(inputs.names)
    texts = [
        str(domain or ("standard normal" if "float" in dtype else "integers 0 and 1"))
        for domain, dtype in zip(domains, inputs.dtypes, strict=True)
    ]
    if len(set(texts)) > 1:
        texts = [f"{name}: {text}" for name, text in zip(inputs.names, texts, strict=True)]
    return f"{count} random samples ({listed(dict.fromkeys(texts))})"


def _flat_pieces(check_data: Any, declared: ModelInputs | None, argument: str) -> list[Any]:
    """Batches of x, as arrays in the structure that came, until there are enough."""
    pieces, count = [], 0
    for x in _batches_of_x(check_data, argument):
        piece = keras.tree.map_structure(_array, x)
        if declared is not None:
            piece = _ordered(piece, declared, argument)
        arrays = keras.tree.flatten(piece)
        if not arrays or arrays[0].ndim == 0:
            raise invalid_argument(argument, "arrays of samples", check_data)
        if any(array.dtype.kind in "OSU" for array in arrays):
            raise invalid_argument(argument, "numbers", [array.dtype.name for array in arrays])
        pieces.append(piece)
        count += len(arrays[0])
        if count >= LARGEST_SAMPLE_COUNT:
            break
    if not pieces:
        raise invalid_argument(argument, "at least one sample", check_data)
    return pieces


def _batches_of_x(check_data: Any, argument: str) -> Iterator[Any]:
    if isinstance(check_data, tuple):
        yield _x_of(check_data)
    elif isinstance(check_data, (list, dict)) or hasattr(check_data, "__array__"):
        yield check_data
    elif isinstance(check_data, keras.utils.PyDataset):
        # It has no iterator of its own, and its batches may have no end.
        numbers = (
            range(check_data.num_batches)
            if check_data.num_batches is not None
            else itertools.count()
        )
        yield from (_x_of(check_data[i]) for i in numbers)
    elif isinstance(check_data, Iterable) and not isinstance(check_data, (str, bytes)):
        yield from map(_x_of, check_data)
    else:
        raise invalid_argument(argument, "what Keras takes for x", check_data)


def _x_of(batch: Any) -> Any:
    """``x`` of ``(x, y)`` or ``(x, y, sample_weight)``; loaders give lists for tuples."""
    return batch[0] if isinstance(batch, (tuple, list)) and batch else batch


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _ordered(piece: Any, inputs: ModelInputs, argument: str) -> Any:
    """Arrays given by the inputs' names, in the order of a model that takes no dict."""
    if not isinstance(piece, dict) or isinstance(inputs.structure, dict):
        return piece
    missing = [name for name in inputs.names if name not in piece]
    if missing:
        raise invalid_argument(
            argument, f"arrays named {list(inputs.names)}", f"arrays named {list(piece)}"
        )
    return [piece[name] for name in inputs.names]


def _require_fit(arrays: Arrays, inputs: ModelInputs, argument: str) -> None:
    fits = (
        len(arrays) == len(inputs.shapes)
        and len({len(array) for array in arrays if array.ndim}) == 1
        and all(map(_fits, arrays, inputs.shapes))
    )
    if not fits:
        expected = [(None, *shape[1:]) for shape in inputs.shapes]
        received = [array.shape for array in arrays]
        raise invalid_argument(
            argument,
            f"samples of shape {expected[0] if len(expected) == 1 else expected}",
            f"arrays of shape {received[0] if len(received) == 1 else received}",
        )


def _fits(array: NDArray[Any], shape: tuple[int | None, ...]) -> bool:
    return array.ndim == len(shape) and all(
        wanted is None or size == wanted
        for size, wanted in zip(array.shape[1:], shape[1:], strict=True)
    )
