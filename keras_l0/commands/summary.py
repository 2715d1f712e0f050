"""``keras-l0 summary``: what a model has, and its zeros."""

import argparse

from keras_l0.commands.inputs import existing_file, load_model
from keras_l0.report.summary import summarize


def run(options: argparse.Namespace) -> int:
    """``keras-l0 summary``."""
    model = load_model(existing_file(options.model, "MODEL"), imports=options.imports)
    found = summarize(model)
    print(found.to_json() if options.json else found)
    return 0
