"""``keras-l0 compress``: a model made small, and exported."""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras

from keras_l0.commands.inputs import existing_file, load_data, load_model
from keras_l0.commands.options import add_data, add_quantize, add_split, read_bound
from keras_l0.data import check_compiled, evaluate
from keras_l0.errors import invalid_argument
from keras_l0.experiments import datasets
from keras_l0.export.tflite import CALIBRATED, check_export, export_tflite
from keras_l0.files import check_folder, replacing, write_text
from keras_l0.pruning.bounds import MODES
from keras_l0.pruning.goals import Goal
from keras_l0.pruning.iterative import FRACTION
from keras_l0.pruning.scores import NAMED
from keras_l0.regularizers import L2L0
from keras_l0.scheme import compress
from keras_l0.search import Settings, read_settings
from keras_l0.text import table

# Options of compress that are arguments of it, which a file of settings gives instead.
SETTINGS = (
    "l2 l0 beta scale method score mode fraction warmup ramp finetune power regrow "
    "learning_rate anneal rewind batch_size"
).split()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="MODEL", help="a compiled model, a .keras file")
    add_data(parser, "--data", required=True)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--compression", type=float, help="all parameters over those left")
    target.add_argument("--sparsity", type=float, help="zeros over all prunable weights")
    target.add_argument(
        "--bound",
        metavar="METRIC=VALUE",
        help="as sparse as it can be while this holds, as val_accuracy=0.98",
    )
    target.add_argument("--settings", metavar="FILE", help="what a search has found, its best.json")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="auto",
        help="with --bound, what is better; by the metric (%(default)s)",
    )
    parser.add_argument(
        "--fraction",
        type=float,
        default=FRACTION,
        help="with --bound, pruned at a time (%(default)s)",
    )
    parser.add_argument("--out", required=True, help="folder for the files")
    add_split(parser)
    parser.add_argument("--l2", type=float, default=1e-5, help="α_ℓ2 (%(default)s)")
    parser.add_argument("--l0", type=float, default=1e-5, help="α_ℓ0 (%(default)s)")
    parser.add_argument("--beta", type=float, default=10.0, help="β (%(default)s)")
    parser.add_argument("--scale", choices=("layer_size", "layer_size_l0"), help="NORM")
    parser.add_argument("--method", choices=("global", "layerwise", "random"), default="global")
    parser.add_argument("--score", choices=tuple(NAMED), default="magnitude", help="(%(default)s)")
    parser.add_argument(
        "--warmup", type=int, default=10, help="epochs before pruning (%(default)s)"
    )
    parser.add_argument(
        "--ramp", type=int, default=20, help="epochs of pruning, 0 for once (%(default)s)"
    )
    parser.add_argument("--finetune", type=int, default=10, help="epochs after it (%(default)s)")
    parser.add_argument("--power", type=float, default=3.0, help="the ramp's degree (%(default)s)")
    parser.add_argument("--regrow", action="store_true", help="weights may grow back in the ramp")
    parser.add_argument("--learning-rate", type=float, help="the optimizer's, if not its own")
    parser.add_argument(
        "--anneal", type=int, default=0, help="falls of it while fine tuning (%(default)s)"
    )
    parser.add_argument(
        "--rewind",
        type=int,
        metavar="EPOCHS",
        help="what is left goes back to its values after so many, 0 to --warmup",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where a run of the same command was killed, or begin if there is none",
    )
    add_quantize(parser)
    parser.set_defaults(settable={name: parser.get_default(name) for name in SETTINGS})


def run(options: argparse.Namespace) -> None:
    """``keras-l0 compress``."""
    path = existing_file(options.model, "MODEL")
    if (Path(options.out) / "model.keras").resolve() == path.resolve():
        raise invalid_argument("out", "a folder other than MODEL's", options.out)
    settings = _settings(options)
    out = check_folder(options.out, "out")
    kept, ended = out / "checkpoint", out / ".checkpoint-ended"
    shutil.rmtree(ended, ignore_errors=True)  # a kill may have left some of it
    if kept.exists() and not options.resume:
        raise invalid_argument(
            "out",
            "a folder without an unfinished run",
            options.out,
            f"Go on with it by --resume, or remove {kept} to begin anew",
        )
    keras.utils.set_random_seed(0)  # the same command, the same network
    model = load_model(path, compiled=True)
    data = load_data(options.data, model, options.holdout, options.raw)
    check_compiled(model)
    check_export(out / "model.tflite", options.quantize)
    train, validation = datasets.split_validation(data, options.validation, seed=0)
    test = (data.x_test, data.y_test)
    before = evaluate(model, test, "data")
    result = compress(model, train, validation, checkpoint_dir=kept, **settings)
    model = result.model  # a new one, if the settings shrink it
    after = evaluate(model, test, "data")
    # The model is safe before the export has a chance to fail.
    with replacing(out / "model.keras") as temporary:
        model.save(temporary)
    exported = export_tflite(
        model,
        out / "model.tflite",
        quantize=options.quantize,
        optimize_for=options.optimize_for,
        calibration=train if options.quantize in CALIBRATED else None,
        check_data=validation,
    )
    report = replace(result.report, export=exported)
    figures = report.to_dict() | {"test_before": before, "test_after": after}
    write_text(out / "report.json", json.dumps(figures, indent=2))
    kept.rename(ended)  # at once, so that no half of it is ever gone on with
    shutil.rmtree(ended)
    print(report)
    rows = [[name, f"{before[name]:.4f}", f"{after[name]:.4f}"] for name in after]
    print(table(["test", "given", "compressed"], rows))
    print(
        "Files: " + ", ".join(str(out / n) for n in ("model.keras", "model.tflite", "report.json"))
    )


def _settings(options: argparse.Namespace) -> Settings:
    """The arguments of compress, from a file that a search wrote, or from the options."""
    if options.settings is not None:
        for name, default in options.settable.items():
            if getattr(options, name) != default:
                raise invalid_argument(
                    name, f"{default} beside --settings, which say it", getattr(options, name)
                )
        return read_settings(existing_file(options.settings, "settings"))
    penalty = L2L0(options.l2, options.l0, options.beta)
    bound = None if options.bound is None else read_bound(options.bound)
    if bound is None:
        Goal(options.sparsity, options.compression)
    return {
        "compression": options.compression,
        "sparsity": options.sparsity,
        "bound": bound,
        "regularizer": penalty if options.l2 or options.l0 else None,
        **{name: getattr(options, name) for name in SETTINGS if name not in penalty.get_config()},
    }
