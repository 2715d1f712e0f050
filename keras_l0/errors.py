"""One form for every error: argument, expected, received, what to do."""

import math
import numbers
from collections.abc import Sequence

# Characters of a received value that a message shows: a large array fills the screen.
_LONGEST = 200


def invalid_argument(
    argument: str, expected: str, received: object, advice: str = ""
) -> ValueError:
    """A ``ValueError`` that tells the argument, what was expected and what came.

    Args:
        argument: the argument's name, as the caller wrote it.
        expected: what would have been accepted, without a full stop.
        received: the value that came.
        advice: a sentence on what to do, where it is not obvious.

    Returns:
        The error, to be raised.

    Example:

    >>> raise invalid_argument("sparsity", "a float in [0, 1)", 1.5)
    Traceback (most recent call last):
    ValueError: Invalid value for argument `sparsity`. Expected a float in [0, 1). \
Received: sparsity=1.5
    """
    came = repr(received)
    if len(came) > _LONGEST:
        came = f"{came[:_LONGEST]}..."
    text = (
        f"Invalid value for argument `{argument}`. Expected {expected}. Received: {argument}={came}"
    )
    return ValueError(f"{text}. {advice.rstrip('.')}." if advice else text)


def one_of(choices: Sequence[str]) -> str:
    """What would have been accepted, of several texts.

    Example:

    >>> one_of(["size", "download", "latency"])
    '"size", "download" or "latency"'
    """
    *others, last = (f'"{choice}"' for choice in choices)
    return f"{', '.join(others)} or {last}"


def choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """Raises a ``ValueError`` unless the value is one of several texts.

    Example:

    >>> choice("scope", "layer", ["layer", "global"])
    """
    if not isinstance(value, str) or value not in choices:
        raise invalid_argument(argument, one_of(choices), value)


def at_least(argument: str, value: float, bound: float) -> float:
    """The value as a float, if it is a finite number of ``bound`` or more.

    Raises:
        ValueError: if it is not.

    Example:

    >>> at_least("weight", 2, 0.0)
    2.0
    """
    if not is_finite(value) or value < bound:
        raise invalid_argument(argument, f"a finite float >= {bound:g}", value)
    return float(value)


def whole_at_least(argument: str, value: int, bound: int) -> int:
    """The value as an int, if it is a whole number of ``bound`` or more.

    Raises:
        ValueError: if it is not.

    Example:

    >>> whole_at_least("every", 2, 1)
    2
    """
    if not is_whole(value) or value < bound:
        raise invalid_argument(argument, f"an integer >= {bound}", value)
    return int(value)


def is_number(value: object) -> bool:
    """Whether it is a real number, NumPy's included; a bool is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether it is a real number that a float can hold; an integer can be too large.

    Example:

    >>> is_finite(1e300), is_finite(10**400), is_finite(float("nan"))
    (True, False, False)
    """
    try:
        return is_number(value) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:
        return False


def is_whole(value: object) -> bool:
    """Whether it is an integer, NumPy's included; a bool is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
