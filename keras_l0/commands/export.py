"""``keras-l0 export``: a model to a file that has been run."""

import argparse
import json
from pathlib import Path
from typing import Any

from keras_l0.commands.inputs import arrays_by_input, existing_file, load_data, load_model
from keras_l0.commands.outputs import check_new
from keras_l0.errors import invalid_argument
from keras_l0.export.tflite import CALIBRATED, export_tflite
from keras_l0.files import check_target


def run(options: argparse.Namespace) -> int:
    """``keras-l0 export``."""
    path = existing_file(options.model, "MODEL")
    check_new("OUT", [check_target(options.out, "OUT")], options.overwrite)
    if options.keep_candidates is not None and Path(options.keep_candidates).is_dir():
        there = sorted(Path(options.keep_candidates).iterdir())
        check_new("keep_candidates", there, options.overwrite)
    model = load_model(path, imports=options.imports)
    check: Any = None
    calibration: Any = None
    if options.check is None and options.quantize == "int8":
        raise invalid_argument(
            "check",
            "DATA with --quantize int8",
            None,
            "Ranges are taken from its training examples",
        )
    named = None if options.check is None else arrays_by_input(options.check, model)
    if named is not None:
        check, calibration = named, named if options.quantize in CALIBRATED else None
    elif options.check is not None:
        data = load_data(options.check, model, None, options.raw, options.pixel_range)
        check = (data.x_test, data.y_test)
        # The training data are what ranges are to be taken from; the test data are held against.
        if options.quantize in CALIBRATED:
            calibration = (data.x_train, data.y_train)
    report = export_tflite(
        model,
        options.out,
        quantize=options.quantize,
        optimize_for=options.optimize_for,
        shrink=not options.no_shrink,
        calibration=calibration,
        check_data=check,
        tolerance=options.tolerance,
        target=options.target,
        timings=options.timings,
        keep_candidates=options.keep_candidates,
    )
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)
    return 0
