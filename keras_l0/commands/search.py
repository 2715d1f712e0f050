"""``keras-l0 search``: settings for compress, found by trying."""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_l0.commands.inputs import existing_file, load_data, load_model, warn_of_chance
from keras_l0.commands.outputs import check_new
from keras_l0.errors import whole_at_least
from keras_l0.experiments import datasets
from keras_l0.files import check_folder, write_text
from keras_l0.report.plots import require_matplotlib, save_figure
from keras_l0.search import Found, SearchResult, Space, plot_front, search
from keras_l0.workers import worker_pool

FILES = ("best.json", "search.json", "search.png")


def run(options: argparse.Namespace) -> int:
    """``keras-l0 search``."""
    ((metric, bound),) = options.bound.items()
    whole_at_least("workers", options.workers, 1)
    whole_at_least("sep_trials", options.sep_trials, 0)
    whole_at_least("seed", options.seed, 0)
    require_matplotlib()
    existing_file(options.model, "MODEL")
    out = check_folder(options.out, "out")
    check_new("out", (out / name for name in FILES), options.overwrite)
    if options.storage is None:
        options.storage = str(out / "search.log")
    warn_of_chance(*_given(options))
    found = _search(options, None)
    if options.sep_trials:
        sep = _search(options, found.best(bound))
        found = replace(found, trials=(*found.trials, *sep.trials))
    best = found.best(bound)
    write_text(out / "search.json", json.dumps(found.to_dict(), indent=1) + "\n")
    write_text(out / "best.json", json.dumps(best.settings, indent=1) + "\n")
    save_figure(plot_front(found), out / "search.png")
    print(found)
    print(
        f"The most compressed one that holds {metric}={bound:g}, or the one that comes nearest: "
        f"{best.study} {best.number}, {found.metric} {best.value:.4f} at {best.compression:.1f}x"
    )
    print("Files: " + ", ".join(str(out / name) for name in FILES))
    return 0


def _given(options: argparse.Namespace) -> tuple[keras.Model, datasets.Dataset]:
    model = load_model(Path(options.model), compiled=True, imports=options.imports)
    return model, load_data(options.data, model, options.holdout, options.raw, options.pixel_range)


def _search(options: argparse.Namespace, start: Found | None) -> SearchResult:
    """One study, shared by the workers."""
    if options.workers > 1:
        with worker_pool(options.workers) as pool:
            list(pool.map(partial(_take_part, options, start), range(1, options.workers + 1)))
    return _take_part(options, start, 0)


def _take_part(options: argparse.Namespace, start: Found | None, worker: int) -> SearchResult:
    ((metric, _),) = options.bound.items()
    model, data = _given(options)
    train, validation = datasets.split_validation(data, options.validation, seed=0)
    own: dict[str, Any] = (
        {
            "name": "norm",
            "trials": options.trials,
            "warmup": options.warmup,
            "finetune": options.finetune,
            "batch_size": options.batch_size,
        }
        if start is None
        else {
            # Another start, after more trials or with another bound, is another study.
            "name": f"sep from {start.number}",
            "trials": options.sep_trials,
            "start": start.settings,
        }
    )
    return search(
        model,
        train,
        validation,
        space=Space(compression=tuple(options.compression), ramp=tuple(options.ramp)),
        metric=metric.removeprefix("val_"),
        mode=options.mode,
        storage=options.storage,
        seed=int(np.random.SeedSequence((options.seed, worker)).generate_state(1)[0]),
        **own,
    )
