"""What happens to a model during one ``fit`` besides training."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras

_WATCH = "_keras_l0_watch"


class Watch:
    """Tells which files a ``fit`` saves and how sparse, and when it is really over.

    Other callbacks may put older weights back at the very end, as ``EarlyStopping`` does, and
    ``ModelCheckpoint`` may keep the file of an early epoch. A callback does not see its
    neighbours; so the model's own ``save`` and ``save_weights`` are watched, and the end of
    the ``History`` that Keras sets behind all of the user's callbacks. A ``fit`` that was
    broken off has no end; it is found out when the next one makes its train function.

    Args:
        model: the model that is fitted.
        sparsities: gives its sparsity at the moment and the one that was asked for; the second
            is more than the first just where zeros are missing. ``None`` if there is none.
        release: called when the ``fit`` is over or found to be broken off.
        finish: called once, after all other callbacks, if it was not broken off.
        keeps: whether it is a ``KeepZeros`` that stands behind it.

    Attributes:
        reminds: whether this is the one watch of the ``fit`` that may remind of ``KeepZeros``;
            known when ``finish`` is called.
    """

    def __init__(
        self,
        model: keras.Model,
        sparsities: Callable[[], tuple[float, float] | None],
        release: Callable[[], None],
        finish: Callable[[], None],
        keeps: bool,
    ) -> None:
        self._model = model
        self._sparsities = sparsities
        self._release = release
        self._finish = finish
        self._saved: dict[str, tuple[float, float]] = {}
        self._warned = False
        self._keeps = keeps
        self.reminds = False
        watches = vars(model).setdefault(_WATCH, [])
        watches.append(self)
        if len(watches) == 1:
            for name in ("save", "save_weights"):
                vars(model)[name] = _noting(getattr(model, name), watches)
            vars(model)["make_train_function"] = _noticing(model, model.history)
            vars(model.history)["on_train_end"] = partial(_over, model, model.history)

    def stale(self) -> dict[str, tuple[float, float]]:
        """Files of this ``fit`` that are less sparse than was asked for, with both figures.

        Of files that differ in numbers alone, such as a checkpoint of each epoch, only the
        last counts.
        """
        series = {re.sub(r"\d+", "#", path): path for path in self._saved}
        return {
            path: self._saved[path]
            for path in series.values()
            if self._saved[path][0] < self._saved[path][1] and Path(path).exists()
        }

    def warns(self) -> bool:
        """Whether no watch of this ``fit`` has warned of lost zeros before; then this one has."""
        first = not any(watch._warned for watch in vars(self._model).get(_WATCH, [self]))
        self._warned = True
        return first


def _over(
    model: keras.Model, history: keras.callbacks.History, logs: dict[str, Any] | None = None
) -> None:
    """The end of the last callback of a ``fit``."""
    del vars(history)["on_train_end"]
    history.on_train_end(logs)
    watches = _released(model)
    for watch in watches:
        watch.reminds = watch is watches[-1] and not any(one._keeps for one in watches)
        watch._finish()


def _noticing(model: keras.Model, history: keras.callbacks.History) -> Callable[..., None]:
    """``make_train_function``, which notices that another ``fit`` has begun."""
    make = model.make_train_function

    def noticing(force: bool = False) -> None:
        if model.history is history:
            make(force)
        else:
            _released(model)
            make(True)

    return noticing


def _released(model: keras.Model) -> list[Watch]:
    """The watches of a model, after they and what they stand for are taken off.

    There are none left where a callback called ``fit`` within a ``fit``.
    """
    watches: list[Watch] = vars(model).pop(_WATCH, [])
    if not watches:
        return []
    for name in ("save", "save_weights", "make_train_function"):
        del vars(model)[name]
    for watch in watches:
        watch._release()
    return watches


def _noting(method: Callable[..., Any], watches: list[Watch]) -> Callable[..., Any]:
    """A method that saves the model, which tells the watches of it."""

    def noting(filepath: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(filepath, *args, **kwargs)
        for watch in watches:
            watch._saved.pop(str(filepath), None)
            sparsities = watch._sparsities()
            if sparsities is not None:
                watch._saved[str(filepath)] = sparsities
        return result

    return noting
