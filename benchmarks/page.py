"""Writes ``benchmarks/README.md``: what the benchmarks measured, as tables and plots.

Nothing is measured here: all figures come from the files in ``benchmarks/results``. Each row of a
table has an anchor, so that what is claimed elsewhere can point at it.

    python benchmarks/page.py
"""

import itertools
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import page_plots
from records import RESULTS, earlier
from tables import THEIRS, Line, from_text, over, over_tfmot, spread, step_ratios, table

from keras_l0.export.cost import PROCESSORS, pays_from
from keras_l0.export.runtime import BLOCKS, ROWS
from keras_l0.files import write_text

PAGE = Path(__file__).with_name("README.md")
Row = dict[str, Any]

HEAD = """# Benchmarks

`make bench` measures start-up, steps, prunings, an export and the oldest of the accuracies again
and writes this page; each is also a program of its own, named under its heading. All single
timings, seeds, versions and the processor are in `results/`. What is timed and compared runs in
turns; a ratio is the median of those of neighbours, with its quartiles. tfmot runs in processes and
an environment of its own, which `make peers` makes.
"""


def accuracy(rows: Sequence[Row]) -> Iterable[str]:
    """Means of seeds at each sparsity, and the gates' at each strength."""
    methods = ("l2-l0", "l2", "tfmot-layers", "tfmot")
    for network in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == network]
        pruned = [row for row in mine if row["method"] in methods]
        lines: list[Line] = []
        for asked in sorted({row["asked"] for row in pruned}):
            here = [row for row in pruned if row["asked"] == asked]
            seeds = [{r["seed"] for r in here if r["method"] == m} for m in methods]
            common = set.intersection(*(of for of in seeds if of))  # no method by other seeds
            here = [row for row in here if row["seed"] in common]
            found = [[r["accuracy"] for r in here if r["method"] == m] for m in methods]
            cells = [f"{network}, {100 * asked:g} %", str(len(common)), *map(_mean, found)]
            lines.append((f"{network}-{asked:g}", cells))
        head = [
            "test accuracy, %",
            "seeds",
            "ours, ℓ2-ℓ0",
            "ours, ℓ2",
            "tfmot, our layers",
            "tfmot",
        ]
        yield table("accuracy", head, lines)
        by = mine[-1]["settings"]
        yield (
            f"{by['images']:,} images in batches of {by['batch']}, {by['epochs']} epochs; "
            f"pruned at the beginning of epochs {by['begin']} to {by['end']}.\n"
        )
        lines = []
        gated = [row for row in mine if row["method"] == "hard-concrete"]
        for asked in sorted({row["asked"] for row in gated}):
            here = [row for row in gated if row["asked"] == asked]
            cells = [_mean([row[name] for row in here]) for name in ("reached", "accuracy")]
            name = f"{network}-gates-{asked:g}"
            lines.append((name, [f"{network}, strength {asked:g}", str(len(here)), *cells]))
        if lines:
            head = ["hard-concrete gates", "seeds", "sparsity, %", "test accuracy, %"]
            yield table("accuracy", head, lines)
    yield page_plots.accuracy(rows)


def steps(rows: Sequence[Row]) -> Iterable[str]:
    """Each kind of each network."""
    lines: list[Line] = []
    for row in rows:
        found = step_ratios(row)
        for name, seconds in row["seconds"].items():
            kind, _, backend = name.partition(" ")
            used = row["used"][name]
            each = statistics.median(statistics.median(turn) for turn in seconds)
            cells = [
                f"{row['network']}, {kind}",
                "tf_keras" if kind in THEIRS else backend,
                spread(found[name]) if name in found else "",
                spread(over_tfmot(row, name)) if "held" in name and "tfmot" in found else "",
                f"{1000 * each:.2f}",
                str(used["retraces"]),
                f"{used['peak_mib']:.0f}",
            ]
            lines.append((f"{row['network']} {name}", cells))
    head = ["a training step", "on", "over that with ℓ2", "over tfmot's", "ms", "retraces"]
    yield table("step", [*head, "peak MiB"], lines)
    yield page_plots.steps(rows)


def prunings(rows: Sequence[Row]) -> Iterable[str]:
    """Each way on each size."""
    lines: list[Line] = []
    for row in rows:
        seconds, extra = row["seconds"], row["extra_mib"]
        for name in seconds:
            ratio = dict.fromkeys(("obvious", "copy"), "")
            for base in ratio:
                if base in seconds and base != name:
                    ratio[base] = spread(over(seconds[name], seconds[base]))
            took = statistics.median(seconds[name])
            gigabytes = row["weights"] * (4 if row["dtype"] == "float32" else 2) / 1e9
            cells = [
                f"{row['size']:,} {row['dtype']} on {row['backend']}, {name}",
                f"{took:.3g}",
                f"{gigabytes / took:.2f}",
                *ratio.values(),
                f"{statistics.median(extra[name]):.0f}",
                f"{row['peak_mib']:.0f}",
            ]
            key = f"{row['size']} {row['dtype']} {row['backend']} {name}"
            lines.append((key, cells))
    head = ["a pruning", "s", "GB/s of weights", "over the obvious way", "over a masked copy"]
    yield table("pruning", [*head, "extra MiB", "peak MiB of all"], lines)
    exponents, text = page_plots.prunings(rows)
    lines = [(name, [name, f"{exponent:.3f}"]) for name, exponent in exponents.items()]
    yield table("growth", ["float32", "time grows with the weights to the power of"], lines)
    yield text


def start_up(rows: Sequence[Row]) -> Iterable[str]:
    """What importing takes."""
    lines: list[Line] = []
    for row in rows:
        seconds = row["seconds"]
        for name in ("import keras", "import keras_l0", "keras-l0 --help"):
            added = seconds.get(f"{name}, added")
            cells = [
                f"{name}, {row['backend']}",
                f"{statistics.median(seconds[name]):.2f}",
                f"{1000 * statistics.median(added):.0f}" if added else "",
            ]
            lines.append((f"{name} {row['backend']}", cells))
    head = ["a process", "s", "ms in one that has imported Keras"]
    yield table("start", head, lines)


def export_time(rows: Sequence[Row]) -> Iterable[str]:
    """What an export takes."""
    lines: list[Line] = [
        (
            row["network"],
            [
                f"{row['network']}, {row['parameters']:,} parameters",
                spread(over(row["export_seconds"], row["stock_seconds"])),
                f"{statistics.median(row['export_seconds']):.1f}",
                f"{row['export_bytes']:,}",
                f"{row['stock_bytes']:,}",
            ],
        )
        for row in rows
    ]
    head = ["an export, all candidates run", "over one conversion", "s", "bytes", "converter's"]
    yield table("export-time", head, lines)


def after_pruning(rows: Sequence[Row]) -> Iterable[str]:
    """Each file of each network."""
    lines: list[Line] = []
    for network, kind in dict.fromkeys((row["network"], row["kind"]) for row in rows):
        mine = [row for row in rows if (row["network"], row["kind"]) == (network, kind)]
        sizes = [statistics.mean(row[name] for row in mine) for name in ("bytes", "gzip_bytes")]
        cells = [
            f"{network}, {kind}",
            str(len(mine)),
            _mean([row["accuracy"] for row in mine]),
            *(f"{size:,.0f}" for size in sizes),
            _mean([row["zeros"] for row in mine]),
            str(sum(row["zeros_lost"] for row in mine)),
        ]
        lines.append((f"{network} {kind}", cells))
    head = ["a file", "seeds", "test accuracy, %", "bytes", "after gzip", "zeros, %", "zeros lost"]
    yield table("after", head, lines)


def default_scores(rows: Sequence[Row]) -> Iterable[str]:
    """Each candidate on each network: means of the seeds at each sparsity."""
    for stage, penalty in dict.fromkeys((row["stage"], row["penalty"]) for row in rows):
        mine = [row for row in rows if (row["stage"], row["penalty"]) == (stage, penalty)]
        networks = dict.fromkeys(row["network"] for row in mine)
        lines: list[Line] = []
        for candidate in dict.fromkeys(name for row in mine for name in row["accuracies"]):
            cells = [candidate]
            for network in networks:
                of = [row["accuracies"] for row in mine if row["network"] == network]
                found = [one[candidate] for one in of if candidate in one]
                asked = found[0] if found else ()
                means = (statistics.mean(one[at] for one in found if at in one) for at in asked)
                cells.append(" / ".join(f"{mean:.1f}" for mean in means))
            lines.append((f"{stage} {penalty} {candidate}", cells))
        sparsities = dict.fromkeys(
            asked for row in mine for values in row["accuracies"].values() for asked in values
        )
        shares = " / ".join(f"{float(one):.0%}" for one in sparsities if float(one))
        with_penalty = "" if penalty == "none" else ", ℓ2-ℓ0"
        head = f"{'fine-tuned' if stage == 'finetune' else 'once'}{with_penalty}, {shares}"
        yield table("score", [head, *networks], lines)
    yield _shortfalls(rows)


RIVALS = ("lamp", "erk", "layerwise")


def _shortfalls(rows: Sequence[Row]) -> str:
    """How far LAMP is behind the best of its rivals: by network, and where by over a point."""
    cells: dict[tuple[str, str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        for candidate in (name for name in RIVALS if name in row["accuracies"]):
            for asked, accuracy in row["accuracies"][candidate].items():
                key = (row["stage"], row["network"], row["penalty"], asked)
                cells.setdefault(key, {}).setdefault(candidate, []).append(accuracy)
    behind = {
        key: max(map(statistics.mean, found.values())) - statistics.mean(found["lamp"])
        for key, found in cells.items()
    }
    tuned = max(value for key, value in behind.items() if key[0] == "finetune")
    means = []
    for network in dict.fromkeys(key[1] for key in cells):
        once = [found for key, found in cells.items() if key[:2] == ("once", network)]
        of = {name: statistics.mean(statistics.mean(one[name]) for one in once) for name in RIVALS}
        means.append(max(of.values()) - of["lamp"])
    exceptions = [
        f"{network}{'' if penalty == 'none' else ' with ℓ2-ℓ0'} at {float(asked):.0%} ({value:.1f})"
        for (stage, network, penalty, asked), value in behind.items()
        if stage == "once" and value > 1
    ]
    return (
        "The default is LAMP. Against the best of LAMP, ERK and one sparsity for all layers it is "
        f"behind by {tuned:.1f} points at most after fine-tuning, and by {max(means):.1f} at most "
        "in a network's mean over sparsities and penalties when pruned once. Single cells pruned "
        f"once are further behind: {', '.join(exceptions)}.\n"
    )


def export_bytes(found: dict[str, Any]) -> Iterable[str]:
    """The smallest right files of each kind, ours and the converter's."""
    lines: list[Line] = [
        (
            f"{name} {one['kind']}",
            [
                f"{name}, {one['kind']}",
                "" if one["stock_bytes"] is None else f"{one['stock_bytes']:,}",
                f"{one['bytes']:,}",
            ],
        )
        for name, of in found["results"].items()
        for one in of["summary"]
    ]
    yield table("export", ["smallest right file, bytes", "converter", "here"], lines)


def sparse_pays() -> Iterable[str]:
    """From how many zeros on a sparse form is faster, by the costs that exports are chosen by."""
    names = {ROWS: "single", BLOCKS: "blocks"}
    lines: list[Line] = []
    for processor, kind, form in itertools.product(PROCESSORS, ("float32", "int8"), names):
        share = pays_from(processor, kind, form, PAYING_INPUTS)
        cells = [f"{processor}, {kind}, {names[form]}", f"{100 * share:.0f}"]
        if share < 1:
            lines.append((f"{processor} {kind} {names[form]}", cells))
    yield table("pays", ["faster sparse than dense", "from zeros, %"], lines)


def _mean(values: Sequence[float]) -> str:
    """The mean of shares in percent, and their standard deviation."""
    if not values:
        return ""
    mean = 100 * statistics.mean(values)
    return (
        f"{mean:.2f} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"
    )


def _made(rows: Sequence[Row]) -> str:
    """What rows were measured by."""
    days = sorted({row["day"] for row in rows})
    pairs = dict.fromkeys(pair for row in rows for pair in row["versions"].items())
    by = ", ".join(f"{name} {version}" for name, version in pairs)
    span = " to ".join(dict.fromkeys((days[0], days[-1])))
    return f"{'; '.join(sorted({row['processor'] for row in rows}))}; {span}; {by}.\n"


MEASURED: list[tuple[str, str, Callable[[Sequence[Row]], Iterable[str]]]] = [
    (
        "## Accuracy at a sparsity\n\n"
        "`python benchmarks/accuracy.py`: the same network, initial weights, batches, optimizer "
        "and epochs, pruned along the same ramp; strengths are the best of six for each "
        "method but the gates on validation images, at 95 % for up to 95 %, at 98 % for more. "
        "tfmot as its guide has it gives each layer the same sparsity; 'our layers' are those that "
        "ours ended with. Gates choose the sparsity themselves. The ResNet (78,714 parameters) "
        "sees CIFAR-10's images at half their size.\n",
        "accuracy.json",
        accuracy,
    ),
    (
        "## A training step\n\n`python benchmarks/step_cost.py`\n",
        "step_cost.json",
        steps,
    ),
    (
        "## A pruning\n\n"
        "`python benchmarks/pruning_cost.py`: ten Dense layers to 90 % zeros, blocks of 4x1, half "
        "of the neurons. The obvious way brings all magnitudes together and calls "
        "`numpy.partition`; a masked copy is `numpy.where` of each kernel, a pass reads each once. "
        "Extra memory is what the process had at its peak, less what it had before. Powers are "
        "fitted from ten million weights on.\n",
        "pruning_cost.json",
        prunings,
    ),
    (
        "## What to rank by\n\n"
        "`python benchmarks/default_score.py`: validation accuracy in percent, means of three "
        "seeds, after pruning once without training, and after a ramp with fine-tuning; "
        "LeNets on MNIST, the DS-CNN on spoken digits, the others on 10,000 images of CIFAR-10, "
        "ResNet-20 on 5,000 at half their size. A floor leaves each kernel at least that share "
        "of what one sparsity for all, or ERK, would leave it.\n",
        "default_score.json",
        default_scores,
    ),
    ("## Start-up\n\n`python benchmarks/start_up.py`\n", "start_up.json", start_up),
    ("## An export\n\n`python benchmarks/export_time.py`\n", "export_time.json", export_time),
    (
        "## After pruning\n\n"
        "`python benchmarks/after_pruning.py`: files of pruned networks as they are, with 16 "
        "values a kernel, with int8 weights and arithmetic, and trained for those by "
        "`quantize_aware` (PQAT; PCQAT with 16 values), two epochs each, for values two more. "
        "Zeros are those in the file; lost is what of the pruned network's zeros is none in the "
        "model.\n",
        "after_pruning.json",
        after_pruning,
    ),
]

PAYING_INPUTS = 512
PAYING = f"""## Where sparse weights are faster

Fully connected layers of {PAYING_INPUTS} inputs, zeros one by one or in blocks of four inputs, by
the costs in `keras_l0/export/cost.py`: instructions on ARM, which `make test-arm` holds against
what is executed, and time on x86.
"""

TEXTS = {
    "latency": "Fewer channels, and latency",
    "segmentation": "Segmentation",
    "relevance": "Relevance-based decay",
    "narrower": "Pruned, or narrow from the beginning",
    "neurons": "Neurons",
    "table2": "Table 2",
    "table3": "Table 3",
    "table3_further": "Table 3, further",
    "ablation": "What each part of the recipe is worth",
    "figure5": "Figure 5",
    "figure7_small": "Figure 7 in short",
    "figure8_small": "Figure 8 in short",
    "figure9_small": "Figure 9 in short",
    "experiment1": "Experiment 1",
}
"""Results that have their tables as text: made by programs of the same name, or by `reproduce`."""


def update(out: Path) -> None:
    """Writes the page anew, if a run's results are those that it shows."""
    if out.resolve().parent == RESULTS.resolve():
        main()


def main() -> None:
    """Writes the page of what has been measured."""
    parts = [HEAD]
    for text, name, lines in MEASURED:
        rows = earlier(RESULTS / name)
        if rows:
            parts += [text, *lines(rows), _made(rows)]
    found = json.loads((RESULTS / "export.json").read_text())
    parts += ["## Files\n\n`python benchmarks/export.py`\n", *export_bytes(found)]
    parts += [PAYING, *sparse_pays()]
    for name, title in TEXTS.items():
        for path in RESULTS.glob(f"{name}.[mt][dx]*"):
            of_paper = path.suffix == ".md"
            call = f"keras-l0 reproduce {name}" if of_paper else f"python benchmarks/{name}.py"
            parts += [f"## {title}\n\n`{call}`\n", from_text(name, path.read_text())]
    write_text(PAGE, "\n".join(parts))


if __name__ == "__main__":
    main()
