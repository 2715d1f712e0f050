"""Fine tuning: the zeros that are there stay zero through a ``fit``."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument
from keras_l0.pruning import unpruned
from keras_l0.pruning.holding import Hold
from keras_l0.pruning.measure import measure, penalty
from keras_l0.pruning.neurons import pinned
from keras_l0.pruning.quota import zeros_in
from keras_l0.pruning.targets import as_patterns, find_targets
from keras_l0.pruning.watch import Watch
from keras_l0.structure.graph import Graph, has_graph


class KeepZeros(keras.callbacks.Callback):
    """Holds the zeros of a pruned network through a ``fit``: fine tuning.

    What is zero before a step is zero after it, with any optimizer, inside the compiled train
    step; so are the biases and normalizations of channels that are zero altogether. Logs gain
    ``sparsity``, ``compression`` and ``penalty`` at each epoch's end. It may
    stand beside another pruning callback.

    Args:
        layers: ``fnmatch`` patterns on a layer's path or name, or one; ``None`` for every
            prunable weight. A kernel that starts from zeros alone stays so: leave it out here.

    Raises:
        ValueError: at the beginning of ``fit``, if a pattern matches no layer.

    Example:

    >>> import numpy as np
    >>> from keras_l0 import KeepZeros, prune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.ones((8, 4), "float32")
    >>> _ = prune(model, 0.5)
    >>> history = model.fit(x, x[:, :1], epochs=2, callbacks=[KeepZeros()], verbose=0)
    >>> history.history["sparsity"]
    [0.5, 0.5]
    """

    def __init__(self, layers: str | Sequence[str] | None = None) -> None:
        super().__init__()
        as_patterns(layers)
        self.layers = layers

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the hook on and has the train step traced with it."""
        model = self.model
        _check_hooked(model)
        self._targets = find_targets(model, self.layers)
        self._epoch: int | None = None
        self._kept = 0
        self._prepare()
        if text := unpruned.lora_warning(self._targets):
            warnings.warn(f"{type(self).__name__}: {text}", stacklevel=2)
        if text := unpruned.not_held(self._targets):
            self._tell(text)
        held = [weight.variable for weight in self._targets.live if weight.variable.trainable]
        _build_optimizer(model)
        self._graph = Graph(model) if has_graph(model) else None
        self._hold = Hold(model.optimizer, held, [variable for variable, _ in self._pinned()])
        model.make_train_function(force=True)
        self._watch = Watch(
            model,
            sparsities=self._sparsities,
            release=self._hold.release,
            finish=self._finish,
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Holds the zeros from the first step on."""
        if self._epoch is None:
            self._kept = self._held_zeros()
            self._hold.switch(True)
        self._pin()
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds ``sparsity``, ``compression`` and ``penalty`` to the logs."""
        if logs is not None:
            now = measure(self.model, self._targets)
            logs["sparsity"] = now.sparsity
            logs["compression"] = now.compression
            logs["penalty"] = penalty(self.model)

    def _pin(self) -> None:
        """Holds the biases and normalizations of the channels that are pruned by now."""
        self._hold.pin([mask for _, mask in self._pinned()])

    def _pinned(self) -> list[tuple[keras.Variable, NDArray[np.bool_]]]:
        if self._graph is None:
            return []
        _ = self.model  # on JAX this brings the weights up to date
        return pinned(self._graph, {id(weight.variable) for weight in self._targets.live})

    def _prepare(self) -> None:
        """What a subclass does once the targets are known."""

    def _missing(self) -> int:
        """How many zeros the model has too few."""
        return max(0, self._kept - self._held_zeros())

    def _held_zeros(self) -> int:
        """The zeros of all that counts, but for kernels that LoRA changes: it was warned of."""
        return zeros_in([weight for weight in self._targets.weights if not weight.has_lora])

    def _sparsities(self) -> tuple[float, float]:
        """The sparsity at the moment, and that with the zeros it has too few."""
        now = measure(self.model, self._targets).sparsity
        return now, now + self._missing() / max(1, self._targets.size)

    def _why(self) -> str:
        return "Weights were put in their place after training, by another callback perhaps."

    def _finish(self) -> None:
        """Tells what came of it."""
        self.model.train_function = None  # the next fit is plain Keras again
        name = type(self).__name__
        now = measure(self.model, self._targets)
        sparsity, asked = self._sparsities()
        if sparsity < asked:
            warnings.warn(
                f"{name}: this fit ends with a sparsity of {sparsity:.4f}, less than the "
                f"{asked:.4f} asked for. {self._why()}",
                stacklevel=2,
            )
        for path, (saved, then) in self._watch.stale().items():
            warnings.warn(
                f"{name}: {path} was saved with a sparsity of {saved:.4f}, less than the "
                f"{then:.4f} asked for: it holds an epoch from before pruning ended. Save the "
                "model after fit, or choose the best epoch in a second fit with KeepZeros().",
                stacklevel=2,
            )
        if sparsity >= asked:
            layers = "" if self.layers is None else repr(self.layers)
            self._tell(
                f"{now.zeros:,} of {self._targets.size:,} weights are zero: sparsity "
                f"{now.sparsity:.4f}, compression {now.compression:.1f}x. A further fit keeps "
                f"them zero only with callbacks=[keras_l0.KeepZeros({layers})]."
            )

    def _tell(self, text: str) -> None:
        """A message of its own line, where ``fit`` is not silent."""
        if self.params.get("verbose") and keras.config.is_interactive_logging_enabled():
            print(f"{type(self).__name__}: {text}")


def _build_optimizer(model: keras.Model) -> None:
    """Makes the optimizer's state, for which TensorFlow would trace the first step twice.

    A train step of the user's own may have other variables than the model's.
    """
    optimizer, step = model.optimizer, getattr(model.train_step, "__func__", None)
    if not optimizer.built and model.trainable_weights and step is keras.Model.train_step:
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(model.trainable_weights)


def _check_hooked(model: keras.Model) -> None:
    """Raises a ``ValueError`` where a training loop of one's own has left out what ``fit`` has."""
    for name, advice in (
        ("optimizer", "Call `model.compile(optimizer)` first"),
        ("history", "Give `add_history=True` to the CallbackList"),
    ):
        if getattr(model, name, None) is None:
            raise invalid_argument("model", f"a model with its {name}", model.name, advice)
