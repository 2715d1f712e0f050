"""``keras-l0 export``: a model to a file that has been run."""

import argparse
import json
from typing import Any

from keras_l0.commands.inputs import arrays_by_input, existing_file, load_data, load_model
from keras_l0.commands.options import add_data, add_quantize
from keras_l0.errors import invalid_argument
from keras_l0.export.tflite import CALIBRATED, TARGETS, export_tflite
from keras_l0.files import check_target


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="MODEL", help="a .keras file")
    parser.add_argument("out", metavar="OUT", help="the .tflite file")
    add_quantize(parser)
    add_data(parser, "--check")
    parser.add_argument(
        "--target", choices=TARGETS, default="arm", help="where it is to run (%(default)s)"
    )
    parser.add_argument("--no-shrink", action="store_true", help="leave dead channels in it")
    parser.add_argument("--tolerance", type=float, help="largest deviation over largest output")
    parser.add_argument(
        "--keep-candidates", metavar="DIR", help="for all candidates and a script to measure them"
    )
    parser.add_argument(
        "--timings", metavar="FILE", help="what that script wrote on a device: choose by it"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> None:
    """``keras-l0 export``."""
    path = existing_file(options.model, "MODEL")
    check_target(options.out, "OUT")
    model = load_model(path)
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
        data = load_data(options.check, model, None, options.raw)
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
