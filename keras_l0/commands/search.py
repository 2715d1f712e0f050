"""``keras-l0 search``: settings for compress, found by trying."""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_l0.commands.inputs import existing_file, load_data, load_model
from keras_l0.commands.options import add_data, add_split, read_bound
from keras_l0.errors import whole_at_least
from keras_l0.experiments import datasets
from keras_l0.files import check_folder, write_text
from keras_l0.pruning.bounds import MODES
from keras_l0.report.plots import require_matplotlib, save_figure
from keras_l0.search import Found, SearchResult, Space, plot_front, search
from keras_l0.workers import worker_pool


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="MODEL", help="a compiled model, a .keras file")
    add_data(parser, "--data", required=True)
    add_split(parser)
    parser.add_argument(
        "--bound",
        metavar="METRIC=VALUE",
        required=True,
        help="the best settings are the most compressed ones that hold it, as val_accuracy=0.98",
    )
    parser.add_argument(
        "--mode", choices=MODES, default="auto", help="what is better (%(default)s)"
    )
    parser.add_argument("--out", required=True, help="folder for the files")
    parser.add_argument(
        "--trials", type=int, default=40, help="with one penalty, scaled: NORM (%(default)s)"
    )
    parser.add_argument(
        "--sep-trials", type=int, default=0, help="layer by layer from there: SEP (%(default)s)"
    )
    parser.add_argument(
        "--compression",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=Space().compression,
        help="the goals (%(default)s)",
    )
    parser.add_argument(
        "--ramp",
        type=int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=Space().ramp,
        help="epochs of pruning (%(default)s)",
    )
    parser.add_argument("--warmup", type=int, default=10, help="epochs before it (%(default)s)")
    parser.add_argument("--finetune", type=int, default=20, help="epochs after it (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes side by side (%(default)s)"
    )
    parser.add_argument(
        "--storage", help="a file or database URL that machines share (OUT/search.log)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draws, another on each machine (%(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """``keras-l0 search``."""
    ((_, bound),) = read_bound(options.bound).items()
    whole_at_least("workers", options.workers, 1)
    whole_at_least("sep_trials", options.sep_trials, 0)
    whole_at_least("seed", options.seed, 0)
    require_matplotlib()
    existing_file(options.model, "MODEL")
    out = check_folder(options.out, "out")
    if options.storage is None:
        options.storage = str(out / "search.log")
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
        f"The most compressed one that holds {options.bound}, or the one that comes nearest: "
        f"{best.study} {best.number}, {found.metric} {best.value:.4f} at {best.compression:.1f}x"
    )
    print("Files: " + ", ".join(str(out / n) for n in ("best.json", "search.json", "search.png")))


def _search(options: argparse.Namespace, start: Found | None) -> SearchResult:
    """One study, shared by the workers."""
    if options.workers > 1:
        with worker_pool(options.workers) as pool:
            list(pool.map(partial(_take_part, options, start), range(1, options.workers + 1)))
    return _take_part(options, start, 0)


def _take_part(options: argparse.Namespace, start: Found | None, worker: int) -> SearchResult:
    ((metric, _),) = read_bound(options.bound).items()
    model = load_model(Path(options.model), compiled=True)
    data = load_data(options.data, model, options.holdout, options.raw)
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
