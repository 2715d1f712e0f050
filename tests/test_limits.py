"""One rule decides which files are right."""

from typing import Any

import numpy as np
import pytest

from keras_l0.export import runner
from keras_l0.export.check import Measured, Samples
from keras_l0.export.limits import Limits, share_of_others, weakness

rng = np.random.default_rng(0)
KINDS = ("float32", "float16", "dynamic", "int8")


def samples_of(*outputs: Any) -> Samples:
    """Of outputs that are given sample by sample."""
    batches = [[np.zeros((1, 1))] for _ in outputs[0]]
    expected = [[y[None] for y in one] for one in zip(*outputs, strict=True)]
    return Samples(("x",), tuple(f"y{i}" for i in range(len(outputs))), batches, expected)


def file_of(samples: Samples, *outputs: Any, plain: Any = None) -> Measured:
    received = tuple(y[:, None] for y in outputs)
    without = received if plain is None else tuple(y[:, None] for y in plain)
    expected = samples.stacked_outputs()
    apart = max(runner.deviation(expected, one) for one in (received, without))
    return Measured("", apart, received, without)


def probabilities(count: int, classes: int = 5, sharpness: float = 5.0) -> Any:
    logits = sharpness * rng.normal(size=(count, classes))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def other_classes(rows: Any, count: int) -> Any:
    """With another class for the first rows."""
    changed = rows.copy()
    for row in changed[:count]:
        row[[row.argmax(), row.argmin()]] = row.min(), row.max()
    return changed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("count", "tolerance", "changed", "right"),
    [
        (256, None, 2, True),
        (256, None, 3, False),
        (100, None, 1, True),
        (100, None, 2, False),
        (16, None, 1, True),  # one of ten or more
        (16, None, 2, False),
        (9, None, 1, False),
        (16, 0.01, 1, False),  # a tolerance that was given is taken at its word
        (256, 0.1, 25, True),
        (256, 0.1, 26, False),
    ],
)
def test_a_classifier_goes_by_the_share_of_classes_that_change(
    kind: str, count: int, tolerance: float | None, changed: int, right: bool
) -> None:
    rows = probabilities(count)
    samples = samples_of(rows)
    limits = Limits.of(tolerance, samples)
    assert limits.of_classes
    refusal = limits.refusal(kind, file_of(samples, other_classes(rows, changed)), samples)
    assert (refusal.reason == "") is right
    assert right or "another class" in refusal.reason
    assert not refusal.tolerable


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_has_no_limit_of_the_deviation(kind: str) -> None:
    """Probabilities that are 0.4 off, of the same class."""
    rows = np.eye(4)[rng.integers(0, 4, 64)]
    samples = samples_of(rows)
    found = file_of(samples, 0.6 * rows + 0.1)
    assert found.deviation > 0.29
    assert Limits.of(None, samples).refusal(kind, found, samples).reason == ""


@pytest.mark.parametrize(
    ("kind", "margin", "counted"),
    [
        ("int8", 0.003, False),
        ("int8", 0.005, True),
        ("dynamic", 0.003, False),
        ("float16", 0.003, True),
        ("float16", 0.0004, False),
        ("float32", 0.0004, True),
        ("float32", 0.0, False),
    ],
)
def test_a_change_between_classes_that_the_format_cannot_tell_apart_is_not_counted(
    kind: str, margin: float, counted: bool
) -> None:
    rows = np.tile([0.3 + margin, 0.3, 0.4 - margin], (20, 1))
    rows[:, 2] = 0.0
    assert share_of_others(kind, rows, np.ones(20, int)) == counted
    assert share_of_others(kind, rows, np.full(20, 2)) == 1.0


@pytest.mark.parametrize(
    ("kind", "limit"), [("float32", 1e-3), ("float16", 1e-2), ("dynamic", 0.1), ("int8", 0.1)]
)
@pytest.mark.parametrize("tolerance", [None, 0.03])
def test_any_other_model_goes_by_the_deviation(
    kind: str, limit: float, tolerance: float | None
) -> None:
    y = rng.normal(size=(50, 3))
    samples = samples_of(y)
    limits = Limits.of(tolerance, samples)
    assert not limits.of_classes
    allowed = (tolerance or limit) * np.abs(y).max()
    for share, right in ((0.9, True), (1.1, False)):
        shifted = y.copy()
        shifted[7, 1] += share * allowed
        refusal = limits.refusal(kind, file_of(samples, shifted), samples)
        assert (refusal.reason == "") is right
        assert refusal.tolerable is not right


@pytest.mark.parametrize(
    "outputs",
    [
        [probabilities(20), probabilities(20)],
        [probabilities(20)[:, :1]],
        [probabilities(20)[:, None].repeat(3, axis=1)],
        [rng.normal(size=(20, 3))],
        [2 * probabilities(20)],
    ],
    ids=["two outputs", "one column", "rows of rows", "logits", "a sum of 2"],
)
def test_only_one_output_of_rows_of_probabilities_is_a_classifier(outputs: list[Any]) -> None:
    assert not Limits.of(None, samples_of(*outputs)).of_classes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [lambda: rng.normal(size=(30, 3)), lambda: probabilities(30)])
def test_a_deviation_as_large_as_the_variation_is_refused(kind: str, build: Any) -> None:
    """Whatever `tolerance`: outputs of other samples, or their mean."""
    y = build()
    samples = samples_of(y)
    limits = Limits.of(5.0, samples)
    for wrong in (np.roll(y, 1, axis=0), np.tile(y.mean(axis=0), (30, 1)), -y):
        refusal = limits.refusal(kind, file_of(samples, wrong), samples)
        assert "as much as that differs between samples" in refusal.reason
        assert not refusal.tolerable
    assert limits.refusal(kind, file_of(samples, 0.9 * y), samples).reason == ""


def test_an_output_that_hardly_varies_is_held_to_the_tolerance_and_called_weak() -> None:
    y = 1 + 1e-4 * rng.normal(size=(30, 2))
    samples = samples_of(y)
    limits = Limits.of(None, samples)
    shuffled = file_of(samples, np.roll(y, 1, axis=0))
    for kind in KINDS:
        weak = kind != "float32"
        assert (limits.refusal(kind, shuffled, samples).reason == "") is weak
        assert ("comparison is weak" in weakness(kind, samples)) is weak
    far = file_of(samples, y + 0.2)
    assert "0.1 is allowed" in limits.refusal("int8", far, samples).reason


def test_a_constant_output_beside_another_is_named_as_weak() -> None:
    samples = samples_of(rng.normal(size=(30, 2)), np.ones((30, 1)))
    assert "output y1 differ" in weakness("float32", samples)
    assert weakness("int8", samples_of(rng.normal(size=(30, 2)))) == ""
    assert "there is one sample" in weakness("int8", samples_of(rng.normal(size=(1, 2))))


@pytest.mark.parametrize("where", ["default", "plain"])
@pytest.mark.parametrize("build", [lambda: rng.normal(size=(30, 3)), lambda: probabilities(30)])
def test_shapes_and_numbers_that_are_none_are_called_so(build: Any, where: str) -> None:
    """In either interpreter, and no tolerance would help."""
    y = build()
    samples = samples_of(y)
    limits = Limits.of(100.0, samples)
    nan = y.copy()
    nan[3, 1] = np.nan
    for wrong, said in (
        (y[:, :2], r"has the shape (1, 2), the Keras model's (1, 3)"),
        (y[:, :, None], r"has the shape (1, 3, 1), the Keras model's (1, 3)"),
        (nan, "its output y0 is NaN or infinite"),
        (np.full_like(y, np.inf), "its output y0 is NaN or infinite"),
    ):
        said = said.replace("3", str(y.shape[1]))
        both = ([wrong], None) if where == "default" else ([y], [wrong])
        refusal = limits.refusal("int8", file_of(samples, *both[0], plain=both[1]), samples)
        assert said in refusal.reason
        assert not refusal.tolerable
