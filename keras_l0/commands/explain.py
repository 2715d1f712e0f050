"""``keras-l0 explain``: what a model's zeros bring, layer by layer."""

import argparse

from keras_l0.commands.inputs import existing_file, load_model
from keras_l0.export.explain import explain_sparsity


def run(options: argparse.Namespace) -> int:
    """``keras-l0 explain``."""
    path = existing_file(options.model, "MODEL")
    given = path if path.suffix == ".tflite" else load_model(path, imports=options.imports)
    print(explain_sparsity(given))
    return 0
