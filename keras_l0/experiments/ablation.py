"""What each part of the recipe for Table 2 is worth, on validation images."""

from dataclasses import replace
from typing import TYPE_CHECKING

from keras_l0.experiments import datasets
from keras_l0.experiments.records import Cell, Values
from keras_l0.experiments.study import Cells, Study, in_words, markdown_table
from keras_l0.experiments.tables import GRADUAL, QUICK_IMAGES, rows, shorter
from keras_l0.experiments.training import Recipe, Teacher, build, measure, train
from keras_l0.report.plots import figure_axes
from keras_l0.report.summary import summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VALIDATION = 10_000
_WHOLE = replace(GRADUAL, weight_compression=103.0)
_ROWS = {
    "whole": _WHOLE,
    "pruned once, after as many epochs": replace(_WHOLE, warmup=70, ramp=0, regrow=False),
    "nothing grows back": replace(_WHOLE, regrow=False),
    "a cubic ramp": replace(_WHOLE, power=3.0),
    "LAMP": replace(_WHOLE, score="lamp"),
    "without ℓ0": replace(_WHOLE, l0=0.0),
    "without ℓ2, but for fine tuning": replace(_WHOLE, l2=0.0),
    "ℓ2 as before while fine tuning": replace(_WHOLE, tuned_l2=None),
    "the rate stays": replace(_WHOLE, anneal=0),
    "the rate falls twice": replace(_WHOLE, anneal=2),
    "rewound to the first weights": replace(_WHOLE, rewind=0),
    "rewound to the end of the warmup": replace(_WHOLE, rewind=_WHOLE.warmup),
    "not shrunk": replace(_WHOLE, shrink=False),
    "taught by LeNet-5-Caffe": replace(_WHOLE, teacher=Teacher()),
}


def cells(quick: bool) -> list[Cell]:
    """Each row with three seeds, or a short one."""
    return [
        Cell(
            name,
            seed,
            {
                **(shorter(recipe) if quick else recipe).settings,
                "images": QUICK_IMAGES if quick else None,
            },
        )
        for seed in range(1 if quick else 3)
        for name, recipe in _ROWS.items()
    ]


def run(cell: Cell) -> Values:
    """Trains by the cell's recipe on all but the last 10,000 training images, and tries on those.

    The test set is not read.
    """
    settings = dict(cell.settings)
    images = settings.pop("images")
    data = datasets.preprocess(datasets.load("mnist"))
    x, y = data.x_train[:-_VALIDATION][:images], data.y_train[:-_VALIDATION][:images]
    held = data.x_train[-_VALIDATION:], data.y_train[-_VALIDATION:]
    recipe = Recipe(**settings)
    dense = summarize(build(recipe, x.shape[1:], data.classes))
    return measure(train(recipe, cell.seed, (x, y), held, data.classes), dense, held)


def conclude(done: Cells) -> Values:
    """The rows, each with how much more error it has than the first, seed by seed."""
    found = rows(done)
    for row in found:
        pairs = zip(row["errors"], found[0]["errors"], strict=True)
        row["increases"] = [error - whole for error, whole in pairs]
    return {"rows": found}


def report(values: Values) -> str:
    """The rows as a table."""
    header = ["row", "seeds", "validation error %", "increase, seed by seed", "compression"]
    return markdown_table(
        header,
        [
            [
                row["name"],
                str(len(row["seeds"])),
                in_words(row),
                ", ".join(f"{one:+.2f}" for one in row["increases"]),
                f"{row['compression']:.1f}",
            ]
            for row in values["rows"]
        ],
    )


def draw(values: Values) -> "Axes":
    """A line for each row: its mean error, and the deviation."""
    (ax,) = figure_axes(1, 1)
    found = values["rows"][::-1]
    ax.errorbar(
        [row["error_mean"] for row in found],
        range(len(found)),
        xerr=[row["error_std"] for row in found],
        fmt="o",
    )
    ax.set_yticks(range(len(found)), [row["name"] for row in found])
    ax.set_xlabel("validation error, %")
    return ax


ABLATION = Study(
    "LeNet-300-100 on MNIST, 103 times fewer weights: what each part of the recipe is worth",
    cells,
    run,
    conclude,
    report,
    draw,
)
