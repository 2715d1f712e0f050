"""``keras-l0 prune``: a model's least important weights set to zero."""

import argparse

from keras_l0.commands.inputs import existing_file, load_model
from keras_l0.commands.outputs import check_new_model, save_model
from keras_l0.pruning.once import prune


def run(options: argparse.Namespace) -> int:
    """``keras-l0 prune``."""
    path = existing_file(options.model, "MODEL")
    out = check_new_model(options.out, options.overwrite)
    model = load_model(path, compiled=True, imports=options.imports)
    # The score's default is the library's.
    named = {} if options.score is None else {"score": options.score}
    pruned = prune(
        model,
        options.sparsity,
        compression=options.compression,
        fraction=options.fraction,
        flops=options.flops,
        method=options.method,
        layers=options.layers,
        seed=options.seed,
        **named,
    )
    save_model(model, out)
    print(pruned)
    print(f"File: {out}")
    return 1 if pruned.dead else 0
