"""Which score prunes networks of unlike layers best: what ``GlobalPrune`` ranks by unless told.

First six networks are trained, with an ℓ2-ℓ0 penalty and without, three seeds each. Then each is
pruned once by every candidate and looked at without any further training. At last three networks
are pruned along a ramp and fine-tuned by the best candidates. All accuracies are of validation
examples; test data are not read.

    KERAS_L0_DATA=DATA python benchmarks/default_score.py train --weights FOLDER
    KERAS_L0_DATA=DATA python benchmarks/default_score.py once --weights FOLDER
    KERAS_L0_DATA=DATA python benchmarks/default_score.py finetune --weights FOLDER
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import page
from records import RESULTS, earlier, update
from small_networks import NETWORKS

from keras_l0 import L2L0

OUT = RESULTS / "default_score.json"
SEEDS = (0, 1, 2)
PENALTIES = ("none", "l2l0")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("train",))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--weights", type=Path, required=True, help="a folder for trained weights")
    options = parser.parse_args()
    options.weights.mkdir(parents=True, exist_ok=True)
    for seed, name, penalty in itertools.product(SEEDS, options.networks, PENALTIES):
        train(name, penalty, seed, options.weights)


if __name__ == "__main__":
    main()
