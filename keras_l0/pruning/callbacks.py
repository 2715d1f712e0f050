"""Pruning during ``fit``, as Keras callbacks."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keras_l0.pruning import collapse, plan, quota, scores, unpruned
from keras_l0.pruning.goals import Goal, global_goal, layerwise_goal
from keras_l0.pruning.keep import KeepZeros
from keras_l0.pruning.once import choose_score
from keras_l0.pruning.schedules import Ramp, check_ramp, resolve
from keras_l0.pruning.units import SINGLE, Unit, choose_unit


class Prune(KeepZeros):
    """What the pruning callbacks share: the ramp, and zeros that are held from it on.

    Not for users.
    """

    def __init__(
        self,
        goal: Goal | None,
        *,
        begin: int | None,
        end: int | None,
        every: int,
        power: float,
        regrow: bool,
        layers: str | Sequence[str] | None,
        unit: Unit = SINGLE,
    ) -> None:
        super().__init__(layers)
        check_ramp(begin, end, every, power, regrow)
        self.goal, self.unit = goal, unit
        self.begin, self.end, self.every, self.power = begin, end, every, power
        self.regrow = regrow

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prunes to this epoch's share of the target; the epoch then trains sparse."""
        ramp = self._ramp
        # A fit that begins past a pruning makes up for it; one that resumes finds it done.
        late = self._epoch is None and epoch > ramp.begin and (epoch > ramp.end or not self.regrow)
        self._pruned = ramp.prunes(epoch) or late
        if self._pruned:
            self._prune(ramp.share(epoch))
            self._dead_check.pruned(self.model, self._targets, self._graph)
        holds = epoch >= (ramp.last_tenth if self.regrow else ramp.begin)
        self._begin(epoch, holds, self._pruned)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks, besides, whether the outputs still vary between validation samples."""
        super().on_epoch_end(epoch, logs)
        if self._pruned or epoch <= self._ramp.end:
            self._dead_check.validated(self.model, logs)

    def _prepare(self) -> None:
        self._pruned = False
        self._dead_check = collapse.DeadCheck(type(self).__name__, self._remedy())
        epochs = self.params["epochs"]
        self._ramp: Ramp = resolve(self.begin, self.end, self.every, self.power, epochs)
        # A goal out of reach, or NaN, is an error now, not in the middle of the night.
        self._check()
        if self._ramp.end >= epochs:
            warnings.warn(
                f"{type(self).__name__}: pruning ends at epoch {self._ramp.end}, but this fit ends "
                f"at epoch {epochs - 1} (epochs count from 0): it will not reach what was asked "
                "for.",
                stacklevel=2,
            )
        for note in unpruned.notes(self._targets):
            self._tell(note)

    def _check(self) -> None:
        """Raises a ``ValueError`` unless what was asked for can be done."""
        quota.check_weights(self._plan())

    def _prune(self, share: float) -> None:
        """Prunes to a share of the target."""
        quota.prune_to(self._plan(), share, self._score())

    def _plan(self) -> list[quota.Quota]:
        """How many zeros in which weights."""
        return plan.global_plan(self.model, self._targets, self.goal, self.unit, self._score())

    def _score(self) -> scores.Score:
        return scores.magnitude

    def _remedy(self) -> str:
        """What helps if the network is dead, besides pruning less."""
        return ""

    def _missing(self) -> int:
        return quota.missing(self._plan())

    def _why(self) -> str:
        if self._epoch is not None and self._epoch < self._ramp.end:
            return f"Pruning ends at epoch {self._ramp.end}, and the last one was {self._epoch}."
        return super()._why()

    def _advice(self) -> str:
        return (
            " If EarlyStopping(restore_best_weights=True) did so, give it "
            f"start_from_epoch={self._ramp.end}."
        )


class GlobalPrune(Prune):
    """Prunes the weights of least score in the network as a whole, during ``fit``.

    Pruning happens at the beginning of an epoch, so that the epoch trains, is validated and
    saved sparse. Zeros are then held inside the compiled train step, by any optimizer, until
    the end of ``fit``. At epoch e the sparsity is::

        s · (1 − (1 − (e − begin + 1) / (end − begin + 1)) ** power)

    Logs gain ``sparsity``, ``compression`` and ``penalty``. A ``fit`` that ends less sparse
    than was asked for says so.

    Args:
        sparsity: s, zeros over all prunable weights chosen, in [0, 1). Just
            ``round(s · n)`` weights are zero; of equal ones the earlier go first.
        compression: instead of ``sparsity``: all parameters of the network over those left,
            ≥ 1.
        begin: the first epoch that prunes, counted from 0 as in ``fit``. With neither
            ``begin`` nor ``end`` the ramp goes from 20 % to 75 % of the epochs; ``begin``
            alone prunes once.
        end: the epoch that prunes last.
        every: epochs from one pruning to the next.
        power: the ramp's degree, > 0; larger is steeper at the beginning.
        score: ``"lamp"``, w² over the sum of the squares of all weights of its tensor that are as
            large or larger, so that no layer loses all its weights; ``"magnitude"``, |w|, the
            paper's; or a function from a weight tensor (NumPy) to scores of its shape. The
            smallest go first.
        regrow: whether weights may grow back until the ramp's last tenth, ranked anew at each
            pruning. Otherwise a zero stays.
        block: two integers ≥ 1, as ``(4, 1)``: a kernel is cut into blocks of so many weights
            along its last two axes, (in, out) in Dense and convolutions, and whole blocks go,
            those of least LAMP with √(Σ w²) in the place of |w|, or of smallest Σ of another
            score. Of n blocks just ``round(s · n)`` are zero, or the fewest that reach the
            compression. A block that the edge cuts short is a block; a kernel of rank 1 is one
            column. The logged sparsity is that of the weights.
        pattern: ``"N:M"``, 0 < N < M, instead of ``sparsity`` and ``compression``: of each M
            consecutive weights along the axis before the last, or the only one, the N of largest
            score stay; of a group that the edge cuts short, N at most. Of the n others those of
            least score go first: ``round(q · n)`` at a share q of the ramp.
        layers: ``fnmatch`` patterns on a layer's path or name, or one: only these are pruned,
            frozen ones too. ``None`` for every prunable weight that is not frozen.

    Raises:
        ValueError: if an argument is out of its range; at the beginning of ``fit``, if a
            pattern matches no layer, the target is out of reach, or a weight is not finite.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_l0 import GlobalPrune
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x = np.ones((8, 10), "float32")
    >>> prune = GlobalPrune(0.8, begin=0, end=1, power=1.0)
    >>> history = model.fit(x, x[:, :1], epochs=3, callbacks=[prune], verbose=0)
    >>> history.history["sparsity"]
    [0.4, 0.8, 0.8]
    >>> blocks = GlobalPrune(compression=4, block=(4, 1))
    >>> two_of_four = GlobalPrune(pattern="2:4", begin=5, end=15)

    Source: the paper's GP (section 4.1); the ramp is Zhu & Gupta's (2017); N:M is NVIDIA's 2:4
    (Mishra et al., "Accelerating sparse deep neural networks", 2021); LAMP is Lee et al.'s,
    "Layer-adaptive sparsity for the magnitude-based pruning" (2021).
    """

    def __init__(
        self,
        sparsity: float | None = None,
        *,
        compression: float | None = None,
        begin: int | None = None,
        end: int | None = None,
        every: int = 1,
        power: float = 3.0,
        score: scores.Ranking = scores.DEFAULT,
        regrow: bool = False,
        block: tuple[int, int] | None = None,
        pattern: str | None = None,
        layers: str | Sequence[str] | None = None,
    ) -> None:
        unit = choose_unit(block, pattern)
        super().__init__(
            global_goal(sparsity, compression, pattern),
            begin=begin,
            end=end,
            every=every,
            power=power,
            regrow=regrow,
            layers=layers,
            unit=unit,
        )
        self.score, self._ranks = score, choose_score("global", score, None)

    def _score(self) -> scores.Score:
        return self._ranks

    def _remedy(self) -> str:
        return collapse.remedy_for(self.score)


class LayerwisePrune(Prune):
    """Prunes the weights of smallest magnitude of each layer, during ``fit``.

    As ``GlobalPrune``, but each layer is ranked by itself: each weight tensor of n weights
    loses ``round(s · n)`` with ``distribution="uniform"``; with ``"erk"`` a layer's density is
    proportional to (Σ dims)/(Π dims), so that small layers stay denser.

    Args:
        sparsity: zeros over all prunable weights chosen, in [0, 1).
        compression: instead: all parameters of the network over those left, ≥ 1.
        distribution: ``"uniform"`` or ``"erk"``.
        sparsities: instead of all three: a sparsity for each layer, by ``fnmatch`` patterns on
            its path or name; the first that matches counts, and a layer that none matches is
            left alone.
        begin: as in ``GlobalPrune``, as are the following.
        end: the epoch that prunes last.
        every: epochs from one pruning to the next.
        power: the ramp's degree.
        regrow: whether weights may grow back until the ramp's last tenth.
        block: blocks of weights that go together; a sparsity, or ERK's density, is that of a
            layer's blocks.
        pattern: ``"N:M"``, instead of all that says how many; each layer has the ramp's share.
        layers: which layers are pruned.

    Raises:
        ValueError: as ``GlobalPrune``, and if a pattern of ``sparsities`` matches no layer.

    Example:

    >>> from keras_l0 import LayerwisePrune
    >>> callback = LayerwisePrune(sparsities={"conv*": 0.5, "dense*": 0.9}, begin=2, end=6)
    >>> callback = LayerwisePrune(0.8, block=(4, 1))

    Source: the paper's LP (section 4.1); ERK is Evci et al., "Rigging the Lottery" (2020).
    """

    def __init__(
        self,
        sparsity: float | None = None,
        *,
        compression: float | None = None,
        distribution: str = "uniform",
        sparsities: Mapping[str, float] | None = None,
        begin: int | None = None,
        end: int | None = None,
        every: int = 1,
        power: float = 3.0,
        regrow: bool = False,
        block: tuple[int, int] | None = None,
        pattern: str | None = None,
        layers: str | Sequence[str] | None = None,
    ) -> None:
        unit = choose_unit(block, pattern)
        super().__init__(
            layerwise_goal(sparsity, compression, distribution, sparsities, pattern),
            begin=begin,
            end=end,
            every=every,
            power=power,
            regrow=regrow,
            layers=layers,
            unit=unit,
        )
        self.distribution = distribution
        self.sparsities = sparsities

    def _plan(self) -> list[quota.Quota]:
        return plan.layerwise_plan(
            self.model, self._targets, self.goal, self.distribution, self.sparsities, self.unit
        )

    def _remedy(self) -> str:
        uniform = self.sparsities is None and self.distribution == "uniform"
        return '; distribution="erk" prunes small kernels less' if uniform else ""


class RandomPrune(Prune):
    """Prunes random weights of the whole network, during ``fit``: the baseline.

    As ``GlobalPrune``, but for the score.

    Args:
        sparsity: zeros over all prunable weights chosen, in [0, 1).
        compression: instead: all parameters of the network over those left, ≥ 1.
        seed: an integer ≥ 0; ``None`` draws one. A resumed run needs the seed of the first.
        begin: as in ``GlobalPrune``, as are the following.
        end: the epoch that prunes last.
        every: epochs from one pruning to the next.
        power: the ramp's degree.
        layers: which layers are pruned.

    Raises:
        ValueError: as ``GlobalPrune``.

    Example:

    >>> from keras_l0 import RandomPrune
    >>> RandomPrune(0.5, seed=1, begin=0).seed
    1

    Source: the paper's RP (section 4.1).
    """

    def __init__(
        self,
        sparsity: float | None = None,
        *,
        compression: float | None = None,
        seed: int | None = None,
        begin: int | None = None,
        end: int | None = None,
        every: int = 1,
        power: float = 3.0,
        layers: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            Goal(sparsity, compression),
            begin=begin,
            end=end,
            every=every,
            power=power,
            regrow=False,
            layers=layers,
        )
        self.seed = scores.check_seed(seed)

    def _score(self) -> scores.Score:
        return scores.random(self.seed)
