"""Pruning for as long as a validation metric holds, as a Keras callback."""

import json
import os
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_l0.errors import choice, invalid_argument, is_finite, is_number, whole_at_least
from keras_l0.files import InMemory, check_target, write_bytes
from keras_l0.optimizers import RelevanceDecay
from keras_l0.pruning import collapse, plan, quota, scores
from keras_l0.pruning.bounds import MODES, holds, larger_is_better
from keras_l0.pruning.holding import chain, optimizers_of
from keras_l0.pruning.keep import KeepZeros
from keras_l0.pruning.measure import measure
from keras_l0.pruning.once import choose_score
from keras_l0.text import listed

SUFFIX = ".weights.h5"
_ATTRIBUTE = "keras_l0"
_STATE = ("_due", "_epoch", "_holding", "_looks", "_validated", "_zeros")
FRACTION = 0.1
"""How much of what is left goes at a time, if nothing else is said."""


@dataclass(frozen=True)
class State:
    """Weights that held the bound, their zeros, and the metric's value."""

    weights: list[NDArray[Any]]
    zeros: int
    value: float


class IterativePrune(KeepZeros):
    """Prunes step by step for as long as a validation metric holds its bound, during ``fit``.

    After each ``every``-th epoch: if the metric is at the bound or better, the weights are kept,
    and the next epoch begins with ``fraction`` of the weights that are left pruned, those of least
    score in the network as a whole; a ``RelevanceDecay`` then starts again with its full γ. If not,
    training goes on with what is left until the bound holds again. At the end of ``fit`` the
    model has the sparsest weights that held it, whatever came after; if none did, nothing was
    pruned, and a warning says so. The weights kept are those that are trained, so that
    ``keras.callbacks.SwapEMAWeights``, which validates others, does not go with it. Zeros that the
    model came with are held from the first step on, but for kernels that are zero throughout:
    those are yet to be trained. Used for another model, the callback begins anew.

    Logs gain ``sparsity``, ``compression`` and ``penalty``.

    Args:
        monitor: the metric's name in the logs, such as ``"val_accuracy"``. Use one on validation
            data. Losses in the logs have the penalties of regularizers in them, which fall as the
            network is pruned: bound a metric instead, such as ``"val_mse"``.
        bound: a finite float: the least it may be, or the most if smaller is better.
        fraction: of the weights that are left, how many go at a time, in (0, 1);
            ``round(fraction · n)`` of n, and one at least.
        mode: ``"max"`` if larger is better, ``"min"`` if smaller is, ``"auto"`` to go by the
            metric.
        begin: the first epoch that may begin with a pruning, ≥ 0, counted from 0 as in ``fit``;
            before epoch 1 there is no metric to go by.
        every: epochs from one look at the metric to the next, ≥ 1.
        score: ``"lamp"`` or ``"magnitude"``, as in ``GlobalPrune``, or a function from a weight
            tensor (NumPy) to scores of its shape; the smallest go first.
        path: a ``.weights.h5`` file for the weights that held, written whole whenever they
            change. A run that is resumed in another process finds them there, and refuses those
            of another metric, or that do not hold its bound; without it, only this object knows
            of them.
        layers: ``fnmatch`` patterns on a layer's path or name, or one: only these are pruned,
            frozen ones too. ``None`` for every prunable weight that is not frozen.

    Raises:
        ValueError: if an argument is out of its range; in ``fit``, if a pattern matches no layer,
            a weight is not finite, or after the first epoch that is validated, if the metric is
            not in the logs or it is not known whether larger is better.

    Example:

    >>> from keras_l0 import IterativePrune
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x = np.ones((8, 10), "float32")
    >>> callback = IterativePrune("val_loss", 100.0, fraction=0.5)
    >>> history = model.fit(x, x[:, :1], epochs=3, validation_data=(x, x[:, :1]),
    ...                     callbacks=[callback], verbose=0)
    >>> history.history["sparsity"]
    [0.0, 0.5, 0.7]

    Source: A. Bonetta, M. Ribero, R. Cancelliere, "Regularization-based pruning of irrelevant
    weights in deep neural architectures", Applied Intelligence (2022).
    """

    def __init__(
        self,
        monitor: str,
        bound: float,
        *,
        fraction: float = FRACTION,
        mode: str = "auto",
        begin: int = 0,
        every: int = 1,
        score: scores.Ranking = scores.DEFAULT,
        path: str | os.PathLike[str] | None = None,
        layers: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(layers)
        if not isinstance(monitor, str) or not monitor:
            raise invalid_argument("monitor", "a metric's name in the logs", monitor)
        if not is_finite(bound):
            raise invalid_argument("bound", "a finite float", bound)
        if not is_number(fraction) or not 0 < fraction < 1:
            raise invalid_argument("fraction", "a float in (0, 1)", fraction)
        choice("mode", mode, MODES)
        whole_at_least("begin", begin, 0)
        whole_at_least("every", every, 1)
        if path is not None and not check_target(path).name.endswith(SUFFIX):
            raise invalid_argument("path", f"a file's path that ends in {SUFFIX}", str(path))
        self._score = choose_score("global", score, None)
        self.monitor, self.bound, self.fraction, self.mode = monitor, bound, fraction, mode
        self.begin, self.every, self.score = begin, every, score
        self.path = None if path is None else Path(path)
        self.kept: State | None = None
        self._kept_of: Callable[[], keras.Model | None] = lambda: None
        self._due = self._validated = False
        self._looks = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prunes, if the bound held at the last look."""
        if self._epoch is None:
            self._resume(epoch)
            self._holding = self._zeros_given() > 0
        pruned = self._due
        if pruned:
            self._prune()
            self._due, self._holding = False, True
        self._begin(epoch, self._holding, pruned)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the metric, and keeps the weights if it holds."""
        super().on_epoch_end(epoch, logs)
        found = logs or {}
        validated = any(name.startswith("val_") for name in found)
        self._validated |= validated
        look = epoch + 1 >= self.begin and (epoch + 1) % self.every == 0
        # What is wrong with the metric is told as soon as there are any on validation data.
        if not look and not validated:
            return
        held = self.holds(found)
        if look:
            self._looks += 1
            self._due = held
            if held:
                self._keep(float(found[self.monitor]))

    def holds(self, logs: Mapping[str, Any]) -> bool:
        """Whether the metric holds its bound in these logs of the model.

        Raises:
            ValueError: if it is not in them, or it is not known whether larger is better.
        """
        if self.monitor not in logs:
            raise invalid_argument(
                "monitor",
                f"a metric that is in the logs: {listed(logs, most=8)}",
                self.monitor,
                "Give `fit` validation_data, with validation_freq=1, and `compile` the metric",
            )
        larger = larger_is_better(self.model, self.monitor, self.mode)
        return holds(logs[self.monitor], self.bound, larger)

    def restore(self) -> None:
        """Gives the model the sparsest weights that held, as the end of ``fit`` does.

        For a ``fit`` that was broken off.

        Raises:
            ValueError: if none did.
        """
        if self.kept is None:
            raise invalid_argument("monitor", "one that held its bound", self.monitor)
        self.model.set_weights(self.kept.weights)

    def get_state(self) -> dict[str, Any]:
        """What the next epoch depends on besides the model, in plain values and arrays."""
        kept = None if self.kept is None else dict(vars(self.kept))
        return {"kept": kept, **{name: getattr(self, name) for name in _STATE}}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Takes up what ``get_state`` gave, in a ``fit`` that goes on from there."""
        for name in _STATE:
            setattr(self, name, state[name])
        self.kept = None if state["kept"] is None else State(**state["kept"])

    def _prepare(self) -> None:
        plan.check_prunable(self.model, self._targets)
        if self._kept_of() is not self.model:
            self.kept, self._kept_of = None, weakref.ref(self.model)
        self._due, self._looks, self._validated = False, 0, False
        self._dead_check = collapse.DeadCheck("IterativePrune", collapse.remedy_for(self.score))
        self._zeros = self._zeros_given()

    def _zeros_given(self) -> int:
        """The zeros of kernels that have others too: one that is all zero is yet to be trained."""
        values = [weight.values() for weight in self._targets.live]
        return sum(int(np.count_nonzero(one == 0)) for one in values if one.any())

    def _resume(self, epoch: int) -> None:
        """Takes up what an earlier ``fit`` left, where this one goes on from it."""
        path = self.path if self.path is not None and self.path.exists() else None
        if epoch == 0:
            self.kept = None
            if path is not None:
                raise invalid_argument(
                    "path",
                    "a new file, since this fit begins at epoch 0",
                    str(path),
                    "It holds an earlier run's weights: move it away, or resume that run",
                )
            return
        if path is not None:
            self._read(path)
        if self.kept is not None:
            self._due = all(map(np.array_equal, self.model.get_weights(), self.kept.weights))

    def _read(self, path: Path) -> None:
        """Takes up the weights of a file; the model and its optimizer stay as they are."""
        value = self._value_of(path)
        now = self.model.get_weights()
        # The file has the optimizer's state of then too.
        optimizers = optimizers_of(self.model).values()
        state = [(v, ops.convert_to_numpy(v)) for one in optimizers for v in one.variables]
        try:
            self.model.load_weights(path)
            self.kept = self._state(value)
        except Exception as error:  # a damaged file fails in as many ways as it has parts
            reason = " ".join(str(error).split())
            raise invalid_argument("path", "weights of this model", str(path), reason) from error
        finally:
            self.model.set_weights(now)
            for variable, before in state:
                variable.assign(before)

    def _value_of(self, path: Path) -> float:
        """The metric's value with the weights of a file."""
        import h5py

        try:
            with h5py.File(path) as file:
                kept = dict(json.loads(file.attrs.get(_ATTRIBUTE, "{}")))
        except Exception as error:  # likewise
            raise invalid_argument("path", "a whole file", str(path), str(error)) from error
        if kept.get("monitor") != self.monitor or not holds(
            kept["value"], self.bound, kept["larger"]
        ):
            raise invalid_argument(
                "path",
                f"a file of weights that hold {self.monitor} at {self.bound:g}",
                str(path),
                f"It was kept for {kept}: move it away" if kept else "It is none of IterativePrune",
            )
        return float(kept["value"])

    def _state(self, value: float) -> State:
        zeros = measure(self.model, self._targets).zeros
        return State(self.model.get_weights(), zeros, value)

    def _keep(self, value: float) -> None:
        state = self._state(value)
        if self.kept is None or state.zeros >= self.kept.zeros:
            self.kept = state
            if self.path is not None:
                import h5py

                kept = {
                    "monitor": self.monitor,
                    "value": value,
                    "larger": larger_is_better(self.model, self.monitor, self.mode),
                }
                memory = InMemory()
                keras.Model.save_weights(self.model, memory)
                with h5py.File(memory, "r+") as file:
                    file.attrs[_ATTRIBUTE] = json.dumps(kept)
                write_bytes(self.path, memory.getvalue())

    def _prune(self) -> None:
        quotas = plan.of_the_rest(self._targets, self.fraction)
        quota.prune_to(quotas, 1.0, self._score)
        self._dead_check.pruned(self.model, self._targets, self._graph)
        for optimizer in optimizers_of(self.model).values():
            for link in chain(optimizer):
                if isinstance(link, RelevanceDecay):
                    link.reset()

    def _missing(self) -> int:
        return 0

    def _finish(self) -> None:
        resumed = self._epoch is None and self.params.get("epochs")
        if resumed and self.path is not None and self.path.exists():
            self._read(self.path)  # a run that was broken off after its last epoch
        if self.kept is not None:
            self.restore()
            self._tell(
                f"a {self.monitor} of {self.kept.value:.6g} held the bound of {self.bound:g}; "
                "the model has the sparsest weights that did."
            )
        super()._finish()
        if self.kept is None:
            warnings.warn(f"IterativePrune: {self._why_nothing()}", stacklevel=2)

    def _why_nothing(self) -> str:
        """Why no weights were kept."""
        if self.monitor.startswith("val_") and self._epoch is not None and not self._validated:
            return (
                f"there was nothing to validate on, so that {self.monitor} was never looked at "
                "and nothing was pruned. Give `fit` validation_data."
            )
        if not self._looks:
            return (
                f"{self.monitor} was never looked at, so that nothing was pruned: this fit ended "
                f"before it was due, with begin={self.begin} and every={self.every}."
            )
        never = f"{self.monitor} never held its bound of {self.bound}, so that nothing was pruned"
        if self._zeros:
            return (
                f"{never} by this fit, and its {self._zeros:,} zeros were there before. Train for "
                "longer, or resume with the `path` of the run that made them."
            )
        return f"{never}. Train for longer, or choose a bound that the dense network reaches."
