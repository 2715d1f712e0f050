"""``keras-l0 shrink``: a model without what has no effect in it."""

import argparse

from keras_l0.commands.inputs import existing_file, load_model
from keras_l0.commands.outputs import check_new_model, save_model
from keras_l0.report.summary import summarize
from keras_l0.structure.shrink import shrink
from keras_l0.text import table


def run(options: argparse.Namespace) -> int:
    """``keras-l0 shrink``."""
    path = existing_file(options.model, "MODEL")
    out = check_new_model(options.out, options.overwrite)
    given = load_model(path, compiled=True, imports=options.imports)
    small = shrink(given)
    save_model(small, out)
    before, after = summarize(given), summarize(small)
    rows = [["parameters", f"{before.parameters:,}", f"{after.parameters:,}"]]
    if before.flops is not None and after.flops is not None:
        rows.append(["multiply-adds for one sample", f"{before.flops:,}", f"{after.flops:,}"])
    print(table(["", "given", "shrunk"], rows))
    print(f"File: {out}")
    return 0
