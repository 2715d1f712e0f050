"""Fine tuning: the zeros that are there stay zero through a ``fit``."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_l0.errors import invalid_argument
from keras_l0.pruning import unpruned
from keras_l0.pruning.holding import Hold, optimizers_of
from keras_l0.pruning.lost import EpochStart
from keras_l0.pruning.measure import measure, penalty
from keras_l0.pruning.neurons import pinned
from keras_l0.pruning.quota import zeros_in
from keras_l0.pruning.targets import Weight, as_patterns, find_targets
from keras_l0.pruning.watch import Watch
from keras_l0.structure.graph import Graph, has_graph


class KeepZeros(keras.callbacks.Callback):
    """Holds the zeros of a pruned network through a ``fit``: fine tuning.

    What is zero before a step is zero after it, with any optimizer, inside the compiled train
    step; so are the biases and normalizations of channels that are zero altogether. Logs gain
    ``sparsity``, ``compression`` and ``penalty`` at each epoch's end. It may
    stand beside another pruning callback.

    Zeros are held through ``model.optimizer`` and every other Keras optimizer in the attributes
    of the model and its layers, also in lists and dictionaries. Where something else changes the
    weights, such as an optimizer of another library in a ``train_step``, the zeros are restored
    before validation and at each epoch's end, and a warning says what was observed.

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

    reminds = True
    """Whether the end of ``fit`` may remind of ``KeepZeros``; ``compress`` goes on with it."""

    def __init__(self, layers: str | Sequence[str] | None = None) -> None:
        super().__init__()
        as_patterns(layers)
        self.layers = layers

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the hook on and has the train step traced with it."""
        model = self.model
        optimizers = optimizers_of(model)
        _check_hooked(model, optimizers)
        if self.params.get("epochs") == 0:
            return
        self._targets = find_targets(model, self.layers)
        self._epoch: int | None = None
        self._kept = 0
        self._ended = 0
        self._start: EpochStart | None = None
        self._replaced: str | None = None
        self._prepare()
        if text := unpruned.lora_warning(self._targets):
            warnings.warn(f"{type(self).__name__}: {text}", stacklevel=2)
        if text := unpruned.not_held(self._targets):
            self._tell(text)
        # Frozen weights too: a callback may set `layer.trainable` later.
        held = [weight.variable for weight in self._counted()]
        _build_optimizer(model)
        self._graph = Graph(model) if has_graph(model) else None
        self._trainable = {
            id(one) for layer in model._flatten_layers() for one in layer._trainable_variables
        }
        self._names = list(optimizers)
        pins = [variable for variable, _ in self._pinned()]
        self._hold = Hold(list(optimizers.values()), held, pins)
        model.make_train_function(force=True)
        self._watch = Watch(
            model,
            sparsities=self._saved_sparsities,
            release=self._hold.release,
            finish=self._finish,
            keeps=type(self) is KeepZeros or not self.reminds,
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Holds the zeros from the first step on."""
        if self._epoch is None:
            self._kept = self._held_zeros()
        self._begin(epoch, holds=True)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restores zeros that training has lost, so that the sparse network is validated."""
        self._restore()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds ``sparsity``, ``compression`` and ``penalty`` to the logs."""
        self._restore()
        self._start = None
        now = measure(self.model, self._targets)
        self._ended = self._held_zeros()
        if logs is not None:
            logs["sparsity"] = now.sparsity
            logs["compression"] = now.compression
            logs["penalty"] = penalty(self.model)

    def _begin(self, epoch: int, holds: bool, pruned: bool = False) -> None:
        """Holds the zeros of now through an epoch, or none.

        Args:
            epoch: which one begins.
            holds: whether zeros are held in it.
            pruned: whether weights were pruned just now.
        """
        _ = self.model  # on JAX this brings the weights up to date
        self._hold.switch(holds)
        zeros = self._pinned() if holds else []
        self._hold.pin(zeros)
        if holds or pruned:
            self._hold.zero_averages()
        trained = [variable for variable in self._hold.variables if variable.trainable]
        if holds:
            kernels = [(one, ops.convert_to_numpy(one) == 0) for one in self._hold.variables]
            zeros += [(one, mask) for one, mask in kernels if one.trainable]
            begun = sum(int(np.count_nonzero(mask)) for _, mask in kernels)
            if self._epoch is not None and not pruned and begun < self._ended:
                self._replaced = (
                    f"Between epochs {self._epoch} and {epoch}, weights were replaced: of "
                    f"{self._ended:,} zeros {begun:,} were left."
                )
        self._start = EpochStart(
            self._hold, self._names, zeros, trained if self._epoch is None else []
        )
        self._epoch = epoch

    def _restore(self) -> None:
        """Restores the zeros of the epoch's beginning, and warns once if there is reason to."""
        if self._start is None:
            return
        _ = self.model  # on JAX this brings the weights up to date
        lost = self._start.restore()
        cause = self._start.cause(lost)
        if cause is not None and self._watch.warns():
            found = f"{lost:,} zeros were lost: " if lost else ""
            warnings.warn(f"{type(self).__name__}: {found}{cause}", stacklevel=2)

    def _pinned(self) -> list[tuple[keras.Variable, NDArray[np.bool_]]]:
        if self._graph is None:
            return []
        _ = self.model  # on JAX this brings the weights up to date
        found = pinned(self._graph, {id(weight.variable) for weight in self._targets.live})
        return [(variable, mask) for variable, mask in found if id(variable) in self._trainable]

    def _prepare(self) -> None:
        """What a subclass does once the targets are known."""

    def _missing(self) -> int:
        """How many zeros the model has too few."""
        return max(0, self._kept - self._held_zeros())

    def _held_zeros(self) -> int:
        """The zeros of all that counts, but for kernels that LoRA changes: it was warned of."""
        return zeros_in(self._counted())

    def _counted(self) -> list[Weight]:
        return [weight for weight in self._targets.weights if not weight.has_lora]

    def _sparsities(self) -> tuple[float, float]:
        """The sparsity at the moment, and that with the zeros it has too few."""
        now = measure(self.model, self._targets).sparsity
        return now, now + self._missing() / max(1, self._targets.size)

    def _saved_sparsities(self) -> tuple[float, float] | None:
        """Both for a file that is saved, unless the model has other weights by now."""
        there = {id(variable) for variable in self.model.variables}
        if any(id(weight.variable) not in there for weight in self._targets.weights):
            return None
        return self._sparsities()

    def _why(self) -> str:
        """What was observed of how it came to have fewer zeros than were asked for."""
        if self._epoch is None:
            return "It ran no epoch."
        if self._held_zeros() < self._ended:
            ended = self._ended / max(1, self._targets.size)
            return (
                f"The last epoch ended with {ended:.4f}, and weights were replaced after it."
                f"{self._advice()}"
            )
        if self._replaced is not None:
            return self._replaced
        return "Its last epoch ended with it."

    def _advice(self) -> str:
        """What helps if a usual callback replaces weights at the end."""
        return ""

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
            reminder = (
                " A further fit keeps them zero only with "
                f"callbacks=[keras_l0.KeepZeros({layers})]."
            )
            self._tell(
                f"{now.zeros:,} of {self._targets.size:,} weights are zero: sparsity "
                f"{now.sparsity:.4f}, compression {now.compression:.1f}x."
                f"{reminder if self._watch.reminds else ''}"
            )

    def _tell(self, text: str) -> None:
        """A message of its own line, where ``fit`` is not silent."""
        if self.params.get("verbose") and keras.config.is_interactive_logging_enabled():
            print(f"{type(self).__name__}: {text}")


def _build_optimizer(model: keras.Model) -> None:
    """Makes the state of ``model.optimizer``: TensorFlow would trace the first step twice for it.

    A train step of the user's own may have other variables than the model's.
    """
    optimizer, step = model.optimizer, getattr(model.train_step, "__func__", None)
    if (
        optimizer is not None
        and not optimizer.built
        and model.trainable_weights
        and step is keras.Model.train_step
    ):
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(model.trainable_weights)


def _check_hooked(model: keras.Model, optimizers: Mapping[str, keras.optimizers.Optimizer]) -> None:
    """Raises a ``ValueError`` where a training loop of one's own has left out what ``fit`` has."""
    if not optimizers and not getattr(model, "compiled", False):
        advice = "Call `model.compile(optimizer)` first"
        raise invalid_argument("model", "a model with its optimizer", model.name, advice)
    if getattr(model, "history", None) is None:
        advice = "Give `add_history=True` to the CallbackList"
        raise invalid_argument("model", "a model with its history", model.name, advice)
