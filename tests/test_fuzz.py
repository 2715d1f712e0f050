"""Odd arguments: a public function does its work, or raises what its docstring says it raises."""

import contextlib
import decimal
import fractions
import inspect
import os
import random
import re
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_l0

QUICK, SLOW = 300, 20_000
SECONDS = 30
"""The most of the processor's time that one call may take: others may be at work beside it."""

FUNCTIONS = {
    name: found
    for name, found in ((name, getattr(keras_l0, name)) for name in dir(keras_l0))
    if callable(found) and not name.startswith("_")
    # A warning's class is caught, and not called.
    if not (isinstance(found, type) and issubclass(found, Warning))
}
ERRORS = {"ValueError": ValueError, "ImportError": ImportError, "RuntimeError": RuntimeError}
# Those that reach Keras, and those that are slow even when all is well: less often.
SELDOM = {"sweep": 0.3, "compress": 0.4, "summarize": 0.2, "shrink": 0.3, "explain_sparsity": 0.3}

# What goes to Keras as it is, which refuses it in words and errors of its own.
KERAS_OWN = {
    *("train", "validation", "finetune_train", "class_weight", "verbose"),
}


class Reached(Exception):  # noqa: N818
    """The arguments were taken: training or a conversion, which nothing here waits for, began."""


class TooLong(BaseException):
    """The call's time is over."""


class Odd:
    """What is like nothing else."""

    def __repr__(self) -> str:
        return "Odd()"


def dense() -> keras.Model:
    layers = [keras.Input((3,)), keras.layers.Dense(4, "relu", name="a"), keras.layers.Dense(2)]
    return keras.Sequential(layers, name="dense")


def convolutional() -> keras.Model:
    inputs = keras.Input((5, 5, 2))
    x = keras.layers.Conv2D(3, 3, name="conv")(inputs)
    x = keras.layers.Flatten()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(x), name="convolutional")


def frozen() -> keras.Model:
    model = dense()
    model.trainable = False
    return model


def infinite() -> keras.Model:
    model = dense()
    model.layers[0].kernel.assign(np.full((3, 4), np.inf))
    return model


def compiled(make: Callable[[], keras.Model]) -> keras.Model:
    model = make()
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    return model


def models() -> list[Any]:
    """Models, whole and otherwise."""
    return [
        compiled(dense),
        compiled(convolutional),
        dense(),
        frozen(),
        infinite(),
        keras.Sequential([keras.layers.Dense(2)]),
        keras.Sequential([keras.Input((3,)), keras.layers.Flatten()]),
        compiled(lambda: keras.Sequential([keras.layers.Dense(2)])),
    ]


def odd_values() -> list[Any]:
    """Anything, and whatever it is nowhere meant to be."""
    tiny = np.finfo(np.float64).smallest_subnormal
    return [
        *(None, True, False, 0, 1, -1, 2, 7, 10**30, -(10**30), 10**400),
        *(0.0, -0.0, 0.5, 0.999999, 1.0, 1.5, -0.5, 1e-300, float(tiny), 1e300),
        *(float("nan"), float("inf"), float("-inf"), 1j, decimal.Decimal("0.5")),
        *(fractions.Fraction(1, 2), np.float32(0.5), np.float16("nan"), np.int64(3), np.bool_(1)),
        *(np.array(0.5), np.array([]), np.ones((2, 3)), np.array([np.nan, np.inf])),
        *(np.array("x"), np.array([Odd()], object), np.array([1j]), np.zeros((0, 3), np.float32)),
        *("", "x", "*", "auto", "l0", "global", "erk", "2:4", "a\0b", "é", "[", "*/*", "9" * 500),
        *(b"bytes", bytearray(b"x"), [], [0.5], [[]], [None], ["a", 1], ["*"], (1, 4), (0, 0)),
        *((-1, 2), (1.5, 2), (1, 2, 3), {}, {"*": 0.5}, {"a": 1.5}, {1: 2}, {"*": None}),
        *({"val_mae": 0.5}, {"val_mae": "x"}, {"val_loss": 1}, set(), {0.5}, frozenset("ab")),
        *(Odd(), Odd, range(3), lambda: 1, lambda w: w, print, len),
        *(Path(), Path("missing/x.tflite"), Path("x.tflite"), "x.weights.h5"),
        *(keras.layers.Dense(2), keras.Input((2,)), keras.optimizers.SGD(), "sgd", "nadam"),
        *(keras.regularizers.L2(0.1), keras_l0.L2L0(l0=0.1), keras.callbacks.History()),
        keras.ops.ones((2, 2)),
    ]


X, Y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)


def fitting() -> dict[str, list[Any]]:
    """What the arguments of each name are meant to be."""
    data = [(X, Y), (X, Y), (X, Y, np.ones(4)), (np.ones((4, 5, 5, 2), np.float32), Y)]
    penalties = [keras_l0.L2L0(0.1, 0.2), keras_l0.GradientCount(0.1), keras.regularizers.L1(0.1)]
    epochs = [0, 1, 2, 5]
    return {
        "train": data,
        "validation": data,
        "finetune_train": data,
        "sparsity": [0.0, 0.5, 0.9],
        "compression": [1, 1.5, 3],
        "compressions": [[1, 2], (1.5,), []],
        "fraction": [0.25, 0.5],
        "flops": [0.0, 0.3],
        "method": ["global", "layerwise", "random", "neuron"],
        "score": [None, "magnitude", "lamp", "norm", "redundancy", np.abs],
        "scope": ["layer", "global"],
        "by": ["network", "layer"],
        "layers": ["a", ["*"], "conv", "out"],
        "distribution": ["uniform", "erk"],
        "sparsities": [{"*": 0.5}, {"a": 0.1, "*": 0.2}],
        "seed": [0, 3],
        "block": [(1, 4), (2, 2)],
        "pattern": ["2:4", "1:2"],
        "regularizer": penalties,
        "regularizers": [penalties, penalties[:1]],
        "overrides": [{"*": penalties[0]}, {"a": None}],
        "scale": ["layer_size", "layer_size_l0"],
        "optimizer": ["sgd", keras.optimizers.Adam(), keras_l0.RelevanceDecay("sgd", 0, 1)],
        "monitor": ["val_mae", "val_loss"],
        "bound": [{"val_mae": 0.5}, 0.5],
        "mode": ["auto", "min", "max"],
        "norm": ["l2", "l1", "l0"],
        "rule": ["relevance", "lobster"],
        "scheme": ["l2l0", "redundancy"],
        "w": [0.5, np.ones((2, 2)), [1, 2]],
        "quantize": ["float16", "dynamic", "int8", "auto"],
        "optimize_for": ["size", "download", "latency"],
        "verbose": [0],
        "class_weight": [None],
        "name": [None, "one"],
        **{key: [None, 2] for key in ("batch_size", "steps")},
        **{key: [None, 1] for key in ("steps_per_epoch", "validation_steps")},
        "callbacks": [[], [keras.callbacks.History()]],
        **dict.fromkeys(["begin", "end", "warmup", "ramp", "finetune", "rewind"], epochs),
    }


class Fuzz:
    """Calls that a seed makes: the same call for the same number, whatever came before."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.models = models()
        self.odd = [*odd_values(), *self.models]
        self.fitting = fitting()
        self.names = sorted(FUNCTIONS)
        self.weights = [SELDOM.get(name, 1.0) for name in self.names]
        self.before = [self._state(model) for model in self.models]

    def call(self, number: int) -> tuple[str, dict[str, Any]]:
        """The name of a function, and its arguments."""
        draw = random.Random(f"{self.seed}/{number}")
        (name,) = draw.choices(self.names, self.weights)
        oddity = draw.choice([0.03, 0.1, 0.5])
        arguments = {}
        for key, parameter in inspect.signature(FUNCTIONS[name]).parameters.items():
            if parameter.default is not parameter.empty and draw.random() > 0.25:
                continue
            fits = self.fitting.get(key, [])
            if key in ("model", "model_or_file"):
                fits = self.models[:3]
            odd = (draw.random() < oddity or not fits) and key not in KERAS_OWN
            arguments[key] = draw.choice(self.odd if odd else fits)
        return name, arguments

    def run(self, number: int) -> str | None:
        """What is wrong with a call, or nothing."""
        name, arguments = self.call(number)
        function = FUNCTIONS[name]
        shown = f"{name}({', '.join(f'{key}={_short(v)}' for key, v in arguments.items())})"
        try:
            with time_limit(SECONDS), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                function(**arguments)
        except Reached:
            pass
        except documented(function) as error:
            own = _innermost(error).startswith(str(Path(keras_l0.__file__).parent))
            if own and type(error) is ValueError and not str(error).startswith("Invalid value"):
                return f"{_place(error)}: {error!r} in another form than all: call {number} {shown}"
            if any(map(self._changed, self.models, self.before)):
                return f"{_place(error)}: a refused call changed a model: call {number} {shown}"
        except (Exception, TooLong) as error:
            return f"{_place(error)}: {error!r} is not documented: call {number} {shown}"
        finally:
            for model, before in zip(self.models, self.before, strict=True):
                if self._changed(model, before):
                    for variable, value in zip(model.weights, before, strict=False):
                        variable.assign(value)
        return None

    def _state(self, model: keras.Model) -> list[np.ndarray]:
        return [np.array(keras.ops.convert_to_numpy(v)) for v in model.weights]

    def _changed(self, model: keras.Model, before: list[np.ndarray]) -> bool:
        # What was not built may have been, by an evaluation.
        return any(map(_differ, self._state(model), before))


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return one.tobytes() != other.tobytes()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _innermost(error: BaseException) -> str:
    """The file that raised an error."""
    return traceback.extract_tb(error.__traceback__)[-1].filename


def _place(error: BaseException) -> str:
    """The last line of the library that the error came through: the same place, the same cause."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if "keras_l0" in f.filename]
    if not lines:
        return "outside"
    return f"{Path(lines[-1].filename).name}:{lines[-1].lineno}"


def documented(function: Callable[..., Any]) -> tuple[type[Exception], ...]:
    """The errors that a docstring has under ``Raises``."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Raises:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    names = re.findall(r"^    (\w+):", section.group(1), re.MULTILINE) if section else []
    return tuple(ERRORS[name] for name in names)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def over(*_: object) -> None:
        raise TooLong(f"{seconds} seconds are over")

    was = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, was)


@pytest.fixture
def nothing_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither training nor a conversion is waited for, and no file is written elsewhere."""

    def reached(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.Model, "fit", reached)
    monkeypatch.setattr("keras_l0.export.tflite.convert_all", reached)
    monkeypatch.setattr("keras_l0.export.explain.dense_files", reached)


def wrong_calls(seed: int, count: int) -> list[str]:
    """What is wrong, once for each place."""
    print(f"seed {seed}, {count} calls")
    fuzz = Fuzz(seed)
    found: dict[str, str] = {}
    for number in range(count):
        wrong = fuzz.run(number)
        if wrong is not None:
            found.setdefault(wrong[:60], wrong)
    return list(found.values())


def test_every_public_function_says_what_it_raises() -> None:
    assert len(FUNCTIONS) >= 22
    silent = [name for name, function in FUNCTIONS.items() if not documented(function)]
    assert silent == []


@pytest.mark.usefixtures("nothing_begins")
@pytest.mark.parametrize(
    ("seed", "count"), [(1, QUICK), pytest.param(2, SLOW, marks=pytest.mark.slow)]
)
def test_odd_arguments_raise_nothing_but_what_is_documented(seed: int, count: int) -> None:
    wrong = wrong_calls(int(os.environ.get("KERAS_L0_FUZZ", seed)), count)
    assert not wrong, "\n".join(wrong)


@pytest.mark.usefixtures("nothing_begins")
def test_the_fuzz_finds_what_is_not_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(w: Any) -> Any:
        """Doubles it.

        Raises:
            ValueError: never.
        """
        return 2.0 * w + 1

    monkeypatch.setattr(f"{__name__}.FUNCTIONS", {"careless": careless})
    wrong = wrong_calls(1, 60)
    assert any("TypeError" in line for line in wrong)


@pytest.mark.usefixtures("nothing_begins")
def test_many_of_the_calls_get_beyond_their_arguments() -> None:
    """A fuzz that is refused at the first argument each time would try nothing."""
    fuzz, passed = Fuzz(3), 0
    for number in range(300):
        name, arguments = fuzz.call(number)
        with contextlib.suppress(ValueError, ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(Reached):
                FUNCTIONS[name](**arguments)
            passed += 1
    assert passed > 40
