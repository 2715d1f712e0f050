"""Which score prunes networks of unlike layers best: what ``GlobalPrune`` ranks by unless told.

First six networks are trained, with an ℓ2-ℓ0 penalty and without, three seeds each. Then each is
pruned once by every candidate and validated without any further training. At last three networks,
trained without penalty, are pruned along a cubic ramp over the first half of some epochs and
fine-tuned in the rest, by some candidates. All accuracies are of validation examples; test data
are not read. ``KERAS_L0_DATA`` names the folder of the data sets.

    python benchmarks/default_score.py train --weights FOLDER
    python benchmarks/default_score.py once --weights FOLDER
    python benchmarks/default_score.py finetune --weights FOLDER
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import page
from records import RESULTS, earlier, update
from score_candidates import CANDIDATES, Scores
from small_networks import NETWORKS

from keras_l0 import L2L0, KeepZeros
from keras_l0.pruning.targets import find_targets

OUT = RESULTS / "default_score.json"
SEEDS = (0, 1, 2)
PENALTIES = ("none", "l2l0")
SPARSITIES = (0.5, 0.8, 0.9)
TUNED = ("lenet_300_100", "ds_cnn", "mobilenet_like")
TUNED_SPARSITIES = (0.8, 0.9)
KEYS = ("stage", "network", "penalty", "seed")


Accuracies = dict[str, dict[str, float]]
"""In percent, by candidate and by sparsity."""


def build(name: str, penalty: str, seed: int) -> keras.Model:
    """A network with its first weights, compiled for its first training."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    regularizer = L2L0(l2=1e-5, l0=1e-5, beta=10.0) if penalty == "l2l0" else None
    return NETWORKS[name].build(regularizer)


def compile_for(model: keras.Model, name: str, epochs: int, rate: float) -> None:
    """Adam, its rate falling to zero along half a cosine."""
    network = NETWORKS[name]
    steps = epochs * -(-len(network.data()[0][0]) // network.batch)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )


def accuracy(model: keras.Model, name: str) -> float:
    """The share of validation examples that are classified right, in percent."""
    _, (x, y) = NETWORKS[name].data()
    return 100 * float(np.mean(model.predict(x, batch_size=250, verbose=0).argmax(-1) == y))


def train(name: str, penalty: str, seed: int, folder: Path) -> None:
    """Trains a network and keeps its weights, if they are not kept yet."""
    path = weights_of(name, penalty, seed, folder)
    if path.exists():
        return
    network = NETWORKS[name]
    (x, y), _ = network.data()
    model = build(name, penalty, seed)
    compile_for(model, name, network.epochs, network.rate)
    model.fit(x, y, batch_size=network.batch, epochs=network.epochs, verbose=0)
    model.save_weights(path)
    print(name, penalty, seed, f"{accuracy(model, name):.2f}", flush=True)


def weights_of(name: str, penalty: str, seed: int, folder: Path) -> Path:
    """Where the weights of a trained network are kept."""
    return folder / f"{name}-{penalty}-{seed}.weights.h5"


def load(name: str, penalty: str, seed: int, folder: Path) -> keras.Model:
    """A trained network."""
    model = build(name, penalty, seed)
    model.load_weights(weights_of(name, penalty, seed, folder))
    return model


def kernels_of(model: keras.Model) -> list[Any]:
    """The variables of all prunable weights."""
    return [weight.variable for weight in find_targets(model).live]


def zero(
    kernels: Sequence[Any], choose: Callable[[Scores, float], Scores], sparsity: float
) -> None:
    """Zeroes what a candidate chooses."""
    values = [kernel.numpy() for kernel in kernels]
    for kernel, value, gone in zip(kernels, values, choose(values, sparsity), strict=True):
        kernel.assign(np.where(gone, 0, value))


def once(name: str, penalty: str, seed: int, folder: Path) -> None:
    """Prunes a trained network by every candidate, each time from the same weights."""
    model = load(name, penalty, seed, folder)
    kernels = kernels_of(model)
    trained = [kernel.numpy() for kernel in kernels]
    found = {"dense": {"0": accuracy(model, name)}}
    for candidate, choose in CANDIDATES.items():
        found[candidate] = {}
        for sparsity in SPARSITIES:
            for kernel, value in zip(kernels, trained, strict=True):
                kernel.assign(value)
            zero(kernels, choose, sparsity)
            found[candidate][str(sparsity)] = accuracy(model, name)
    keep("once", name, penalty, seed, found)
    print("once", name, penalty, seed, flush=True)


class Ramp(keras.callbacks.Callback):
    """Prunes at the beginning of each epoch of the first half, by a cubic ramp."""

    def __init__(self, choose: Callable[[Scores, float], Scores], sparsity: float) -> None:
        super().__init__()
        self.choose, self.sparsity = choose, sparsity

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Prunes."""
        last = self.params["epochs"] // 2
        if epoch <= last:
            share = 1 - (1 - (epoch + 1) / (last + 1)) ** 3
            zero(kernels_of(self.model), self.choose, share * self.sparsity)


def finetune(name: str, seed: int, candidate: str, sparsity: float, folder: Path) -> None:
    """Prunes a trained network along a ramp, and trains it on."""
    network = NETWORKS[name]
    (x, y), _ = network.data()
    model = load(name, "none", seed, folder)
    compile_for(model, name, network.finetune, network.rate / 2)
    ramp = Ramp(CANDIDATES[candidate], sparsity)
    model.fit(x, y, network.batch, network.finetune, callbacks=[ramp, KeepZeros()], verbose=0)
    value = accuracy(model, name)
    keep("finetune", name, "none", seed, {candidate: {str(sparsity): value}})
    print("finetune", name, seed, candidate, sparsity, f"{value:.2f}", flush=True)


def keep(stage: str, network: str, penalty: str, seed: int, found: Accuracies) -> None:
    """Adds accuracies to those of a trained network, a share of zeros for each."""
    row = dict(zip(KEYS, (stage, network, penalty, seed), strict=True))
    same = [old for old in earlier(OUT) if all(old[key] == row[key] for key in KEYS)]
    accuracies: Accuracies = same[0]["accuracies"] if same else {}
    for candidate, values in found.items():
        rounded = {sparsity: round(value, 2) for sparsity, value in values.items()}
        accuracies[candidate] = {**accuracies.get(candidate, {}), **rounded}
    update(OUT, KEYS, {**row, "accuracies": accuracies})


def main() -> None:
    """Runs a stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("train", "once", "finetune"))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--weights", type=Path, required=True, help="a folder for trained weights")
    options = parser.parse_args()
    options.weights.mkdir(parents=True, exist_ok=True)
    if options.stage == "finetune":
        names = [name for name in options.networks if name in TUNED]
        for seed, name, sparsity, candidate in itertools.product(
            SEEDS, names, TUNED_SPARSITIES, options.candidates
        ):
            finetune(name, seed, candidate, sparsity, options.weights)
    else:
        stage = train if options.stage == "train" else once
        for seed, name, penalty in itertools.product(SEEDS, options.networks, PENALTIES):
            stage(name, penalty, seed, options.weights)
    page.update(OUT)


if __name__ == "__main__":
    main()
