"""``keras-l0 compress``: a model made small, and exported."""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_l0.commands.inputs import existing_file, load_data, load_model, warn_of_chance
from keras_l0.commands.outputs import check_new, save_model
from keras_l0.data import check_compiled, evaluate
from keras_l0.errors import invalid_argument
from keras_l0.experiments import datasets
from keras_l0.export.exportable import check_expressible
from keras_l0.export.tflite import CALIBRATED, check_export, export_tflite
from keras_l0.files import check_folder, write_text
from keras_l0.pruning.goals import Goal
from keras_l0.regularizers import L2L0
from keras_l0.result import metric_rows, plain
from keras_l0.scheme import compress
from keras_l0.search import Settings, read_settings
from keras_l0.text import table

FILES = ("model.keras", "model.tflite", "report.json")


def run(options: argparse.Namespace) -> int:
    """``keras-l0 compress``."""
    path = existing_file(options.model, "MODEL")
    if (Path(options.out) / "model.keras").resolve() == path.resolve():
        raise invalid_argument("out", "a folder other than MODEL's", options.out)
    settings = _settings(options)
    out = check_folder(options.out, "out")
    kept, ended = out / "checkpoint", out / ".checkpoint-ended"
    shutil.rmtree(ended, ignore_errors=True)  # a kill may have left some of it
    if options.resume and not kept.exists() and (out / "report.json").exists():
        finished = _finished(out, settings)
        print(f"{out}: the run is finished, there is nothing to resume.")
        print(_files(out))
        return 1 if finished.get("dead") else 0
    if kept.exists() and not options.resume and not options.overwrite:
        raise invalid_argument(
            "out",
            "a folder without an unfinished run",
            options.out,
            "Go on with it by --resume, or begin anew with --overwrite",
        )
    if not kept.exists():  # the files beside an unfinished run are its own
        check_new("out", (out / name for name in FILES), options.overwrite)
    if options.overwrite:
        shutil.rmtree(kept, ignore_errors=True)
    keras.utils.set_random_seed(0)  # the same command, the same network
    model = load_model(path, compiled=True, imports=options.imports)
    data = load_data(options.data, model, options.holdout, options.raw, options.pixel_range)
    check_compiled(model)
    check_export(out / "model.tflite", options.quantize)
    check_expressible(model)
    train, validation = datasets.split_validation(data, options.validation, seed=0)
    test = (data.x_test, data.y_test)
    before = evaluate(model, test, "data")
    warn_of_chance(model, data)
    result = compress(model, train, validation, checkpoint_dir=kept, **settings)
    model = result.model  # a new one, if the settings shrink it
    after = evaluate(model, test, "data")
    # The model is safe before the export has a chance to fail.
    save_model(model, out / "model.keras")
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
    print(table(["test", "given", "compressed"], metric_rows([before, after], report.loss_name)))
    print(_files(out))
    return 1 if report.dead else 0


def _files(out: Path) -> str:
    return "Files: " + ", ".join(str(out / name) for name in FILES)


def _finished(out: Path, settings: Settings) -> dict[str, Any]:
    """The report there.

    Raises:
        ValueError: unless it is that of a run with these settings.
    """
    try:
        report: dict[str, Any] = json.loads((out / "report.json").read_bytes())
        said = report["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise invalid_argument(
            "out", "a folder with a whole report.json", str(out), str(error)
        ) from error
    for name, value in settings.items():
        ours = json.loads(json.dumps(plain(value)))
        if said.get(name) != ours:
            raise invalid_argument(
                "out",
                "the folder of this run",
                str(out),
                f"The finished run there has {name}={said.get(name)!r}, this one {ours!r}: "
                "choose another folder, or give --overwrite instead of --resume",
            )
    return report


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
    if options.bound is None and options.method != "neuron" and options.flops is None:
        Goal(options.sparsity, options.compression)
    found: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("compression", "sparsity", "flops", "bound", *options.settable)
        if name not in penalty.get_config()
    }
    if found["score"] is None:  # the library's default
        del found["score"]
    return {**found, "regularizer": penalty if options.l2 or options.l0 else None}
