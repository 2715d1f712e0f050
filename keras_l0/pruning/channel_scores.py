"""Which channels matter least: a score for each class of channels, the smallest go first."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from keras_l0.structure.graph import Graph, Group
from keras_l0.structure.rules import Weights

Score = Callable[[Graph, Weights], NDArray[np.float64]]


def norm(graph: Graph, w: Weights) -> NDArray[np.float64]:
    """The ℓ2 norm of the weights that make a channel: √(Σ w²) over all the kernels tied to it.

    Args:
        graph: the model's.
        w: what a variable holds.

    Returns:
        A score for each class of channels; the smallest go first.
    """
    squares = np.zeros(graph.count)
    for slot in graph.slots:
        if slot.role == "makes":
            values = np.moveaxis(w(slot.variable), slot.axis, 0).astype(np.float64)
            sums = np.square(values).reshape(len(values), -1).sum(1)
            squares += np.bincount(graph.classes[slot.ids], sums, graph.count)
    return np.sqrt(squares)


def redundancy(graph: Graph, w: Weights) -> NDArray[np.float64]:
    """How unlike all others of its group a channel is that still stand when its turn comes.

    Two channels are as alike as their filters, each flattened: |cos| = |a · b| / (‖a‖ ‖b‖), the
    largest over the layers that hang together. Of the most alike pair the one of smaller
    norm goes first, with a score of 1 − |cos|, and the other one stays; then those that are left
    are compared again. Channels that are zero score −1, the last one of a group 1.

    Our reading of paper B, of which the abstract alone was at hand, after RePr (Prakash et al.,
    2019) and Ayinde & Zurada (2018).

    Args:
        graph: the model's.
        w: what a variable holds.

    Returns:
        A score for each class of channels, from −1 to 1; the smallest go first.
    """
    scores = np.ones(graph.count)
    for group in graph.groups:
        alike, norms = _alikeness(group, graph, w)
        scores[group.channels] = _turns(alike, norms)
    return scores


def _alikeness(
    group: Group, graph: Graph, w: Weights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest |cos| of each two channels of a group, and each channel's norm."""
    count = len(group.channels)
    alike = np.zeros((count, count))
    squares = np.zeros(count)
    for slot in group.slots:
        values = np.moveaxis(w(slot.variable), slot.axis, 0).astype(np.float64)
        filters = values.reshape(len(values), -1)
        classes = graph.classes[slot.ids]
        there = np.isin(classes, group.channels)
        places = np.searchsorted(group.channels, classes[there])
        # A channel that stands at several places, as in a grouped convolution, has them in a row.
        order = np.argsort(places, kind="stable")
        own, first, turns = np.unique(places[order], return_index=True, return_counts=True)
        flat = np.zeros((len(own), int(turns.max(initial=0)), filters.shape[1]))
        rows = np.repeat(np.arange(len(own)), turns)
        flat[rows, np.arange(len(order)) - first[rows]] = filters[there][order]
        rows_of = flat.reshape(len(own), -1)
        norms = np.linalg.norm(rows_of, axis=1)
        squares[own] += norms**2
        unit = rows_of / np.where(norms > 0, norms, 1.0)[:, None]
        both = np.ix_(own, own)
        alike[both] = np.maximum(alike[both], np.abs(unit @ unit.T))
    return alike, np.sqrt(squares)


def _turns(alike: NDArray[np.float64], norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score with which each channel goes."""
    live = norms > 0
    scores = np.where(live, 1.0, -1.0)
    alike = np.where(live & live[:, None] & ~np.eye(len(norms), dtype=bool), alike, -1.0)
    best = alike.argmax(axis=1)
    for _ in range(np.count_nonzero(live) - 1):
        one = int(alike[np.arange(len(best)), best].argmax())
        other = int(best[one])
        goes = one if norms[one] < norms[other] else other
        scores[goes] = max(0.0, 1.0 - alike[one, other])
        alike[goes], alike[:, goes] = -1.0, -1.0
        stale = best == goes
        best[stale] = alike[stale].argmax(axis=1)
    return scores


SCORES: dict[str, Score] = {"norm": norm, "redundancy": redundancy}
