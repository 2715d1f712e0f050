"""How the experiments train, prune and measure a network: one recipe, plain values throughout."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
from keras.regularizers import Regularizer
from numpy.typing import NDArray

from keras_l0 import annealing
from keras_l0.attach import regularize
from keras_l0.data import unpack
from keras_l0.distillation import soft_targets
from keras_l0.errors import invalid_argument
from keras_l0.experiments import convolutional, datasets, networks
from keras_l0.experiments.augmentation import Augmented
from keras_l0.regularizers import L2L0
from keras_l0.report.summary import Summary, summarize
from keras_l0.result import Result
from keras_l0.scheme import compress
from keras_l0.structure.shrink import shrink

NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "lenet_300_100": networks.lenet_300_100,
    "lenet_5_caffe": networks.lenet_5_caffe,
    "vgg_16": convolutional.vgg_16,
    "small_vgg": partial(convolutional.vgg_16, width=0.25),
    "resnet_20": convolutional.resnet_20,
    # Sevenfold, as the authors have it, an epoch took 38 s of an H200 that other runs shared.
    "resnet_50": partial(convolutional.resnet_50, upsampling=2),
}

Pair = tuple[Any, Any]

_MNIST = (28, 28, 1)

_PRUNING = "method warmup ramp finetune power regrow rewind shrink".split()


@dataclass(frozen=True)
class Teacher:
    """A dense LeNet-5-Caffe whose word counts while another network is fine-tuned.

    Args:
        weight: of its word in the targets, in (0, 1].
        temperature: that levels it, > 0.
        dropout: before the hidden and the last layer; without it a network would know its images
            by heart, and say no more of them than their labels.
        rate: Adam's learning rate, which falls along half a cosine.
        batch: examples a step.
        epochs: of training.
        augmentation: of its images, a name of ``AUGMENTATIONS``; it is asked about them as they
            are.
    """

    weight: float = 0.5
    temperature: float = 2.0
    dropout: tuple[float, float] = (0.3, 0.5)
    rate: float = 1e-3
    batch: int = 100
    epochs: int = 6
    augmentation: str = "none"

    def train(self, x: Any, y: Any, classes: int, seed: int) -> keras.Model:
        """Such a network."""
        keras.utils.set_random_seed(seed)
        *first, hidden, last = networks.lenet_5_caffe(_MNIST, classes).layers
        before_hidden, before_last = map(keras.layers.Dropout, self.dropout)
        model = keras.Sequential(
            [keras.Input(_MNIST), *first, before_hidden, hidden, before_last, last]
        )
        model.compile(keras.optimizers.Adam(self.rate), "sparse_categorical_crossentropy")
        model.fit(
            **unpack(_examples(self, x, y, seed), "x"),
            batch_size=_batch_size(self),
            epochs=self.epochs,
            callbacks=annealing.callbacks(self.rate, 0, self.epochs, 1),
            verbose=0,
        )
        return model

    def targets(self, x: Any, y: Any, classes: int, seed: int) -> NDArray[np.float32]:
        """What it says of the images that it was trained on, mixed with their labels."""
        x = datasets.fit_to(x, _MNIST)
        model = self.train(x, y, classes, seed)
        return soft_targets(model, x, y, weight=self.weight, temperature=self.temperature)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained and pruned.

    Args:
        network: a name of ``NETWORKS``.
        l2: α_ℓ2 of the penalty, ≥ 0.
        l0: α_ℓ0, ≥ 0.
        l1: α_ℓ1 of Keras' own ℓ1 penalty, instead of the two, ≥ 0.
        beta: β, ≥ 1.
        scale: of the penalty, as in ``regularize``: NORM.
        overrides: for layers by pattern, α_ℓ2, α_ℓ0 and β of their own: SEP.
        rate: Adam's learning rate.
        batch: examples a step.
        warmup: epochs before the first pruning, as in ``compress``.
        ramp: epochs of pruning, 0 for once.
        finetune: epochs after it.
        power: the ramp's degree.
        regrow: whether weights may grow back during the ramp.
        anneal: how many times the rate falls while fine tuning, as in ``compress``.
        rewind: the epoch whose weights what is left goes back to, as in ``compress``; not with
            ``first``.
        shrink: whether all that is dead is taken out before fine tuning.
        method: as in ``compress``.
        score: of ``method="global"``, a name that ``compress`` knows; the paper's by default.
        tuned_l2: α_ℓ2 while fine tuning, if it is another then.
        teacher: for fine tuning, if there is to be one; or its arguments.
        augmentation: of the images, a name of ``AUGMENTATIONS``.
        first: the weight compression of a pruning before the ramp, in a fifth as many epochs
            more, after which all that is dead is taken out; 1 for none.
        weight_compression: the goal: prunable weights over those that are left, ≥ 1.
    """

    network: str
    l2: float = 0.0
    l0: float = 0.0
    l1: float = 0.0
    beta: float = 10.0
    scale: str | None = None
    overrides: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rate: float = 1e-3
    batch: int = 100
    warmup: int = 10
    ramp: int = 0
    finetune: int = 0
    power: float = 3.0
    regrow: bool = False
    anneal: int = 1
    rewind: int | None = None
    shrink: bool = False
    method: str = "global"
    score: str = "magnitude"
    tuned_l2: float | None = None
    teacher: Teacher | None = None
    augmentation: str = "none"
    first: float = 1.0
    weight_compression: float = 1.0

    def __post_init__(self) -> None:
        if self.rewind is not None and self.first > 1:
            raise invalid_argument("rewind", "None with a first pruning", self.rewind)
        if isinstance(self.teacher, Mapping):  # from a result file
            object.__setattr__(self, "teacher", Teacher(**self.teacher))

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments, for a result file."""
        return asdict(self)

    @property
    def penalty(self) -> Regularizer | None:
        """What is put on each kernel, before it is scaled."""
        if self.l1:
            return keras.regularizers.L1(self.l1)
        return L2L0(self.l2, self.l0, self.beta) if self.l2 or self.l0 else None

    @property
    def penalised(self) -> dict[str, Any]:
        """The arguments of ``regularize``."""
        return {
            "regularizer": self.penalty,
            "scale": self.scale if self.penalty else None,
            "overrides": {name: L2L0(**values) for name, values in self.overrides.items()},
        }

    @property
    def pruning(self) -> dict[str, Any]:
        """The arguments of ``compress``."""
        return {
            "sparsity": 1 - 1 / self.weight_compression,
            **self.penalised,
            "finetune_penalty": (
                True if self.tuned_l2 is None else L2L0(self.tuned_l2, self.l0, self.beta)
            ),
            "batch_size": _batch_size(self),
            "anneal": min(self.anneal, self.finetune),
            **{name: getattr(self, name) for name in _PRUNING},
            "score": self.score if self.method == "global" else None,
        }

    @property
    def early(self) -> dict[str, Any]:
        """Those among them that are others in the first pruning."""
        return {
            "sparsity": 1 - 1 / self.first,
            "ramp": -(-self.ramp // 5),
            "power": 3.0,
            "regrow": False,
            "finetune": 0,
            "finetune_penalty": True,
            "anneal": 0,
            "shrink": True,
        }


def _examples(how: Recipe | Teacher, x: Any, y: Any, seed: int) -> Any:
    """What is trained on: the arrays, or batches of them that are changed at random."""
    if how.augmentation == "none":
        return x, y
    return Augmented(x, y, how.batch, how.augmentation, seed)


def _batch_size(how: Recipe | Teacher) -> int | None:
    """Of the arrays; batches have theirs."""
    return how.batch if how.augmentation == "none" else None


def train(recipe: Recipe, seed: int, data: Pair, validation: Pair, classes: int) -> Result:
    """A network, trained and pruned by a recipe.

    Args:
        recipe: how.
        seed: of the initial weights and the order of the examples.
        data: examples and labels to train on.
        validation: to look at meanwhile; nothing is chosen by it.
        classes: the number of classes.

    Returns:
        The network, and how it came about.
    """
    keras.utils.set_random_seed(seed)
    model = build(recipe, data[0].shape[1:], classes)
    (x, y), (x_val, y_val) = (
        (datasets.fit_to(x, model.input_shape[1:]), y) for x, y in (data, validation)
    )
    tuned_on = None
    if recipe.teacher is not None:
        tuned_on = _examples(recipe, x, recipe.teacher.targets(x, y, classes, seed), seed)
        y, y_val = (keras.utils.to_categorical(one, classes) for one in (y, y_val))
    fit = partial(
        compress,
        train=_examples(recipe, x, y, seed),
        validation=(x_val, y_val),
        seed=seed if recipe.method == "random" else None,
        verbose=0,
    )
    options = recipe.pruning
    if recipe.first > 1:
        kept = summarize(model).prunable / recipe.weight_compression
        model = fit(model, **options | recipe.early).model
        options |= {"warmup": 0, "sparsity": 1 - kept / summarize(model).prunable}
    return fit(model, finetune_train=tuned_on, **options)


def build(recipe: Recipe, shape: tuple[int, ...], classes: int) -> keras.Model:
    """The recipe's network for examples of a shape, with its penalty on and compiled."""
    # Convolutions want the channel axis that MNIST's images are published without.
    images = shape if recipe.network == "lenet_300_100" else (*shape, 1)[:3]
    model = NETWORKS[recipe.network](images, classes)
    model.compile(
        keras.optimizers.Adam(recipe.rate),
        f"{'' if recipe.teacher else 'sparse_'}categorical_crossentropy",
        metrics=["accuracy"],
    )
    regularize(model, **recipe.penalised)
    return model


def left_of(model: keras.Model) -> int:
    """The parameters that are not zero, after ``shrink`` where that is possible.

    A network whose outputs depend on no input any more is counted as it stands.
    """
    with contextlib.suppress(ValueError):
        model = shrink(model)
    return summarize(model).left


def measure(result: Result, dense: Summary, test: Pair) -> dict[str, float]:
    """What a network has come to: its error in percent, and its compression.

    ``dense`` is of the network before anything was pruned or taken out. ``compression`` is all
    its parameters over those that are left after ``shrink`` and are not zero;
    ``weight_compression`` its prunable weights over those that pruning has left.
    """
    model, (x, y) = result.model, test
    outputs = model.predict(datasets.fit_to(x, model.input_shape[1:]), verbose=0)
    pruned = result.report.summary
    return {
        "error": 100 * float(np.mean(outputs.argmax(axis=-1) != y)),
        "compression": dense.parameters / left_of(model),
        "weight_compression": dense.prunable / (pruned.prunable - pruned.zeros),
    }
