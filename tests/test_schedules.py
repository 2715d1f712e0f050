"""The ramp is the design's formula, and its end prunes to the whole target."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import invalid

from keras_l0.pruning.schedules import Ramp, check_ramp, resolve


@pytest.fixture(autouse=True)
def fresh_keras() -> None:
    """In place of conftest's: nothing here knows Keras."""


powers = st.floats(0.01, 100.0)


@st.composite
def ramps(draw: st.DrawFn) -> Ramp:
    begin = draw(st.integers(0, 50))
    end = begin + draw(st.integers(0, 50))
    return Ramp(begin, end, draw(st.integers(1, 12)), draw(powers))


@given(begin=st.integers(0, 50), length=st.integers(0, 50), power=powers)
def test_the_share_at_each_epoch_is_the_designs_formula(
    begin: int, length: int, power: float
) -> None:
    ramp = Ramp(begin, begin + length, 1, power)
    for e in range(begin, begin + length + 1):
        formula = 1 - (1 - (e - begin + 1) / (length + 1)) ** power
        assert ramp.share(e) == pytest.approx(formula, rel=1e-12)
        assert ramp.prunes(e)


@given(ramp=ramps())
def test_the_share_is_0_before_begin_and_just_1_from_the_end_on(ramp: Ramp) -> None:
    assert [ramp.share(e) for e in range(ramp.begin)] == [0.0] * ramp.begin
    assert [ramp.share(e) for e in range(ramp.end, ramp.end + 5)] == [1.0] * 5
    assert ramp.prunes(ramp.end)


@given(ramp=ramps())
def test_the_share_never_falls_and_stays_within_0_and_1(ramp: Ramp) -> None:
    shares = [ramp.share(e) for e in range(ramp.end + 3)]
    assert shares == sorted(shares)
    assert all(0.0 <= share <= 1.0 for share in shares)


@given(ramp=ramps())
def test_the_share_changes_only_where_the_ramp_prunes(ramp: Ramp) -> None:
    pruned = [e for e in range(ramp.end + 3) if ramp.prunes(e)]
    assert pruned == sorted({*range(ramp.begin, ramp.end + 1, ramp.every), ramp.end})
    for e in range(1, ramp.end + 3):
        if e not in pruned:
            assert ramp.share(e) == ramp.share(e - 1)


def test_the_cubic_ramp_is_zhu_and_guptas() -> None:
    ramp = Ramp(begin=0, end=9)
    assert [ramp.share(e) for e in range(10)] == pytest.approx(
        [1 - (1 - (e + 1) / 10) ** 3 for e in range(10)]
    )


@pytest.mark.parametrize(
    ("epochs", "begin", "end"),
    [(100, 20, 75), (20, 4, 15), (10, 2, 7), (5, 1, 3), (4, 0, 3), (3, 0, 2), (2, 0, 1), (1, 0, 0)],
)
def test_by_default_the_ramp_goes_from_20_to_75_percent(epochs: int, begin: int, end: int) -> None:
    assert resolve(None, None, 1, 3.0, epochs) == Ramp(begin, end, 1, 3.0)


@given(epochs=st.integers(1, 5000))
def test_the_default_ramp_ends_within_fit(epochs: int) -> None:
    ramp = resolve(None, None, 1, 3.0, epochs)
    assert 0 <= ramp.begin <= ramp.end <= epochs - 1
    assert abs(ramp.begin - 0.2 * epochs) < 1
    assert abs(ramp.end - 0.75 * epochs) <= 1


@given(begin=st.integers(0, 50), every=st.integers(1, 5), epochs=st.integers(1, 100))
def test_begin_alone_prunes_once_and_wholly(begin: int, every: int, epochs: int) -> None:
    ramp = resolve(begin, None, every, 3.0, epochs)
    assert [e for e in range(begin + 20) if ramp.prunes(e)] == [begin]
    assert ramp.share(begin) == 1.0


def test_begin_and_end_are_kept_though_fit_is_shorter() -> None:
    assert resolve(3, 30, 2, 1.0, epochs=10) == Ramp(3, 30, 2, 1.0)


@given(ramp=ramps())
def test_the_last_tenth_is_a_tenth_of_the_ramp_at_most_and_the_end_at_least(ramp: Ramp) -> None:
    length = ramp.end - ramp.begin + 1
    held = ramp.end - ramp.last_tenth + 1
    assert ramp.begin <= ramp.last_tenth <= ramp.end
    assert held == max(1, math.floor(length / 10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"begin": -1}, invalid("begin", "None or an epoch, an integer >= 0", "-1")),
        ({"begin": 1.0}, invalid("begin", "None or an epoch, an integer >= 0", "1.0")),
        ({"begin": True}, invalid("begin", "None or an epoch, an integer >= 0", "True")),
        ({"begin": 0, "end": -2}, invalid("end", "None or an epoch, an integer >= 0", "-2")),
        ({"begin": 0, "end": "9"}, invalid("end", "None or an epoch, an integer >= 0", "'9'")),
        ({"begin": 5, "end": 4}, invalid("begin", "an epoch <= end=4", "5")),
        ({"end": 4}, invalid("begin", "an epoch <= end=4", "None")),
        ({"every": 0}, invalid("every", "an integer >= 1", "0")),
        ({"every": 1.5}, invalid("every", "an integer >= 1", "1.5")),
        ({"every": True}, invalid("every", "an integer >= 1", "True")),
        ({"power": 0.0}, invalid("power", "a float in (0, 1e6)", "0.0")),
        ({"power": -1}, invalid("power", "a float in (0, 1e6)", "-1")),
        ({"power": math.nan}, invalid("power", "a float in (0, 1e6)", "nan")),
        ({"power": "3"}, invalid("power", "a float in (0, 1e6)", "'3'")),
        ({"power": True}, invalid("power", "a float in (0, 1e6)", "True")),
        ({"regrow": 1}, invalid("regrow", "a bool", "1")),
        *(
            (
                {"begin": 3, "end": end, "regrow": True},
                invalid(
                    "regrow",
                    "False, since begin without a later end prunes once",
                    "True",
                    "Give `end`",
                ),
            )
            for end in (None, 3)
        ),
    ],
)
def test_a_ramp_that_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    given = {"begin": None, "end": None, "every": 1, "power": 3.0, "regrow": False} | arguments
    with pytest.raises(ValueError, match=message):
        check_ramp(**given)


@pytest.mark.parametrize(
    "arguments",
    [(None, None, 1, 3.0, True), (0, None, 1, 3.0, False), (3, 3, 1, 3, False), (0, 1, 9, 1, True)],
)
def test_a_ramp_that_makes_sense_passes(arguments: tuple[object, ...]) -> None:
    check_ramp(*arguments)


def test_a_power_that_is_refused_is_refused_for_what_it_is() -> None:
    with pytest.raises(ValueError, match=r"^Invalid value for argument `power`\.") as refusal:
        check_ramp(0, 3, 1, 1e7, False)
    assert "Expected a float > 0. " not in str(refusal.value)
