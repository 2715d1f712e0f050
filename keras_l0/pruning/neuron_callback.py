"""Pruning of neurons and filters during ``fit``, as a Keras callback."""

from collections.abc import Sequence

from keras_l0.models import check_finite
from keras_l0.pruning.callbacks import Prune
from keras_l0.pruning.neurons import NeuronGoal, Neurons
from keras_l0.text import by_reason


class NeuronPrune(Prune):
    """Prunes whole neurons and filters, those that matter least, during ``fit``.

    Channels that must go together, since layers hang together by a sum or a depthwise
    convolution, are one, and go by one score. All that makes such a channel becomes zero: its
    filters, biases, γ and β, and the moving mean of its normalization. They are held at zero from
    then on, and ``shrink`` takes them out of the trained model. Layers whose channels cannot be
    taken out are left alone and named. As in ``GlobalPrune``, pruning happens at the beginning of
    an epoch, to the ramp's share of ``fraction``, ``flops`` or ``1 - 1 / compression``. Before a
    ``GlobalPrune`` in the list, which then counts its zeros, it is the paper's NP+GP.

    Logs gain ``sparsity``, ``compression`` and ``penalty``.

    Args:
        fraction: the share of channels to take, in [0, 1): ``round(fraction · n)`` of the n
            channels that the same layers make, one or those that hang together.
        flops: instead: the share of multiply-adds to take, in [0, 1), of the model as it stands;
            the fraction is the smallest that reaches it.
        compression: instead: all parameters of the network over those that ``shrink`` leaves, ≥ 1;
            the fraction is the smallest that reaches it.
        score: ``"norm"``, the ℓ2 norm √(Σ w²) of all weights that make a channel; or
            ``"redundancy"``, 1 − |cos| between the filters of the two most alike channels, of
            which the one of smaller norm goes and the other stays (our reading of Khan et al.,
            whose abstract alone was at hand).
        scope: ``"layer"``; or ``"global"``, where the channels of all groups are ranked together.
        minimum: how many channels stay in each layer, ≥ 1.
        round_to: each layer keeps a multiple of so many channels, ≥ 1, or all that it has: a
            runtime computes several at once, and a part of them takes as long as all.
        begin: as in ``GlobalPrune``, as are the following.
        end: the epoch that prunes last.
        every: epochs from one pruning to the next.
        power: the ramp's degree.
        layers: which layers are pruned; of a group all must be among them.

    Raises:
        ValueError: if an argument is out of its range; at the beginning of ``fit``, if the model
            has no graph (a subclassed one), no channel can go, the target is out of reach, or a
            weight is not finite.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_l0 import NeuronPrune, shrink
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(8, "relu"),
    ...                           keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x = np.random.default_rng(0).normal(size=(8, 10))
    >>> callback = NeuronPrune(0.5, begin=0)
    >>> history = model.fit(x, x[:, :1], epochs=2, callbacks=[callback], verbose=0)
    >>> shrink(model).layers[0].units
    4

    Source: the paper's NP (section 4.6); groups after Fang et al., "DepGraph" (2023).
    """

    def __init__(
        self,
        fraction: float | None = None,
        *,
        flops: float | None = None,
        compression: float | None = None,
        score: str = "norm",
        scope: str = "layer",
        minimum: int = 1,
        round_to: int = 1,
        begin: int | None = None,
        end: int | None = None,
        every: int = 1,
        power: float = 3.0,
        layers: str | Sequence[str] | None = None,
    ) -> None:
        self.asked = NeuronGoal(fraction, flops, compression, scope, minimum, score, round_to)
        super().__init__(
            None, begin=begin, end=end, every=every, power=power, regrow=False, layers=layers
        )

    def _check(self) -> None:
        check_finite(self.model)
        self._found = Neurons(self.model, self._targets)
        self._found.choose(self.asked)
        for line in by_reason(self._found.left_alone):
            self._tell(f"channels stay, {line}.")

    def _prune(self, share: float) -> None:
        check_finite(self.model)
        self._found.zero(self._found.choose(self.asked, share))

    def _finish(self) -> None:
        super()._finish()
        left = self._found.parameters(self._found.gone())
        self._tell(
            "keras_l0.shrink(model) takes the pruned channels out: of its "
            f"{self.model.count_params():,} parameters {left:,} stay."
        )

    def _missing(self) -> int:
        return self._found.missing(self._found.choose(self.asked))
