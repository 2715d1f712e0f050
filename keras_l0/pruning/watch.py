"""What happens to a model during one ``fit`` besides training."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

_WATCH = "_keras_l0_watch"


class Watch:
    """Tells which files a ``fit`` saves and how sparse, and when it is really over.

    Other callbacks may put older weights back at the very end, as ``EarlyStopping`` does, and
    ``ModelCheckpoint`` may keep the file of an early epoch. A callback does not see its
    neighbours; so the model's own ``save`` and ``save_weights`` are watched, and the end of
    the ``History`` that Keras sets behind all of the user's callbacks.

    Args:
        model: the model that is fitted.
        sparsity: gives its sparsity at the moment.
        finish: called once, after all other callbacks.
    """

    def __init__(
        self, model: keras.Model, sparsity: Callable[[], float], finish: Callable[[], None]
    ) -> None:
        self._model = model
        self._sparsity = sparsity
        self._finish = finish
        self._saved: dict[str, float] = {}
        watches = vars(model).setdefault(_WATCH, [])
        if watches and watches[0]._history is not model.history:  # a fit that was broken off
            watches.clear()
            self._unwrap()
        self._history = model.history
        watches.append(self)
        if len(watches) == 1:
            for name in ("save", "save_weights"):
                vars(model)[name] = _noting(getattr(model, name), watches)
            vars(model.history)["on_train_end"] = self._over

    def stale(self, sparsity: float) -> dict[str, float]:
        """Files of this ``fit`` with less than ``sparsity``, and what they have.

        Of files that differ in numbers alone, such as a checkpoint of each epoch, only the
        last counts.
        """
        series = {re.sub(r"\d+", "#", path): path for path in self._saved}
        return {
            path: self._saved[path]
            for path in series.values()
            if self._saved[path] < sparsity and Path(path).exists()
        }

    def _over(self, logs: dict[str, Any] | None = None) -> None:
        del vars(self._history)["on_train_end"]
        self._history.on_train_end(logs)
        watches = vars(self._model).pop(_WATCH)
        self._unwrap()
        for watch in watches:
            watch._finish()

    def _unwrap(self) -> None:
        for name in ("save", "save_weights"):
            vars(self._model).pop(name, None)


def _noting(method: Callable[..., Any], watches: list[Watch]) -> Callable[..., Any]:
    """A method that saves the model, which tells the watches of it."""

    def noting(filepath: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(filepath, *args, **kwargs)
        for watch in watches:
            watch._saved.pop(str(filepath), None)
            watch._saved[str(filepath)] = watch._sparsity()
        return result

    return noting
