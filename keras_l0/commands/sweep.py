"""``keras-l0 sweep``: a model's metrics at several compressions."""

import argparse
from pathlib import Path

from keras_l0.commands.inputs import existing_file, load_data, load_model, warn_of_chance
from keras_l0.commands.outputs import check_new
from keras_l0.experiments import datasets
from keras_l0.files import check_target
from keras_l0.report.plots import require_matplotlib, save_figure
from keras_l0.report.sweep import sweep


def run(options: argparse.Namespace) -> int:
    """``keras-l0 sweep``."""
    path = existing_file(options.model, "MODEL")
    if options.plot is not None:
        require_matplotlib()
        check_new("plot", [check_target(options.plot, "plot")], options.overwrite)
    model = load_model(path, compiled=True, imports=options.imports)
    data = load_data(options.data, model, options.holdout, options.raw, options.pixel_range)
    _, validation = datasets.split_validation(data, options.validation, seed=0)
    warn_of_chance(model, data)
    named = {} if options.score is None else {"score": options.score}
    found = sweep(
        model,
        validation,
        compressions=options.compressions,
        method=options.method,
        by=options.by,
        layers=options.layers,
        seed=options.seed,
        batch_size=options.batch_size,
        **named,
    )
    if options.plot is not None:
        save_figure(found.plot(), Path(options.plot))
    print(found.to_json() if options.json else found)
    return 0
