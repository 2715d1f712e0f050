"""``keras-l0 summary``: what a model has, and its zeros."""

import argparse

from keras_l0.commands.inputs import existing_file, load_model
from keras_l0.report.summary import summarize


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="MODEL", help="a .keras file")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> None:
    """``keras-l0 summary``."""
    model = load_model(existing_file(options.model, "MODEL"))
    found = summarize(model)
    print(found.to_json() if options.json else found)
