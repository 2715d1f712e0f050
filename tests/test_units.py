"""Every unit counts what it scores, and its masks are of just the weights that go."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from strategies import blocks, eighths, invalid, shapes

from keras_l0.pruning.units import SINGLE, Block, Pattern, Unit, choose_unit


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """In place of conftest's: nothing here knows Keras."""


units = st.one_of(
    st.just(SINGLE),
    blocks.map(lambda block: Block(*block)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)).map(lambda n: Pattern(n[0], sum(n))),
)
arrays = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=eighths))


@given(unit=units, array=arrays)
def test_as_many_units_have_a_finite_score_as_are_counted(
    unit: Unit, array: NDArray[np.float32]
) -> None:
    scores = unit.scores(np.abs(array))
    assert np.count_nonzero(np.isfinite(scores)) == unit.count(array.shape)


@given(unit=units, array=arrays)
def test_a_unit_scores_zero_just_where_all_its_weights_are_zero(
    unit: Unit, array: NDArray[np.float32]
) -> None:
    by_size, by_being = unit.scores(np.abs(array)), unit.scores(array != 0)
    assert np.count_nonzero(by_size) == np.count_nonzero(by_being)
    gone = unit.mask(by_size == 0, array.shape)
    assert gone.shape == array.shape
    assert not array[gone].any()


@given(array=arrays)
def test_single_weights_are_left_as_they_are(array: NDArray[np.float32]) -> None:
    assert SINGLE.scores(array) is array
    gone = array == 0
    assert SINGLE.mask(gone, array.shape) is gone


@pytest.mark.parametrize(
    ("block", "pattern", "unit"),
    [
        (None, None, SINGLE),
        ((4, 1), None, Block(4, 1)),
        ([1, np.int64(8)], None, Block(1, 8)),
        (None, "2:4", Pattern(2, 4)),
        (None, "1:16", Pattern(1, 16)),
    ],
)
def test_the_unit_is_the_one_asked_for(block: Any, pattern: Any, unit: Unit) -> None:
    assert choose_unit(block, pattern) == unit


@pytest.mark.parametrize(
    "bad", [4, "41", (4,), (4, 1, 1), (0, 1), (4, -1), (4.0, 1), (True, 1), (4, None), {4: 1}, ()]
)
def test_a_block_that_is_no_pair_of_sides_is_refused(bad: Any) -> None:
    message = invalid("block", "None or a pair of integers >= 1", repr(bad))
    with pytest.raises(ValueError, match=message):
        choose_unit(bad, None)


@pytest.mark.parametrize(
    "bad",
    ["4:2", "2:2", "2", "0:4", 5, (2, 4), "", ":", "2:", "2:4 ", "2 : 4", "-2:4", "2:4:8", "a:b"],
)
def test_a_pattern_that_is_not_n_of_m_is_refused(bad: Any) -> None:
    message = invalid("pattern", 'None or "N:M" with integers 0 < N < M', repr(bad))
    with pytest.raises(ValueError, match=message):
        choose_unit(None, bad)


def test_a_block_beside_a_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match=invalid("block", "None beside `pattern`", "(4, 1)")):
        choose_unit((4, 1), "2:4")
