"""How small a network is to become, as the user says it."""

from collections.abc import Mapping
from dataclasses import dataclass

from keras_l0.errors import at_least, choice, invalid_argument, is_number


@dataclass(frozen=True)
class Goal:
    """How small the network is to become; just one of the two is given.

    Args:
        sparsity: zeros over the weights chosen, in [0, 1).
        compression: all parameters of the network over those left, ≥ 1.

    Raises:
        ValueError: if both, neither, or a value out of its range is given.
    """

    sparsity: float | None = None
    compression: float | None = None

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.compression is None):
            raise invalid_argument(
                "sparsity",
                "just one of `sparsity` and `compression`",
                self.sparsity,
                f"And compression={self.compression!r}",
            )
        if self.sparsity is not None:
            check_fraction("sparsity", self.sparsity)
        if self.compression is not None:
            at_least("compression", self.compression, 1.0)


def global_goal(
    sparsity: float | None, compression: float | None, pattern: str | None
) -> Goal | None:
    """The goal of global pruning; ``None`` where ``pattern`` says it all.

    Raises:
        ValueError: for arguments out of range, or that do not go together.
    """
    if pattern is None:
        return Goal(sparsity, compression)
    if sparsity is not None or compression is not None:
        raise invalid_argument(
            "pattern", "None beside `sparsity` or `compression`", pattern, "It fixes the sparsity"
        )
    return None


def layerwise_goal(
    sparsity: float | None,
    compression: float | None,
    distribution: str,
    sparsities: Mapping[str, float] | None,
    pattern: str | None = None,
) -> Goal | None:
    """The goal of layerwise pruning; ``None`` where ``sparsities`` or ``pattern`` says it all.

    Raises:
        ValueError: for arguments out of range, or that do not go together.
    """
    choice("distribution", distribution, ("uniform", "erk"))
    if pattern is not None:
        if distribution != "uniform" or sparsities is not None:
            raise invalid_argument(
                "pattern",
                "None beside `distribution` or `sparsities`",
                pattern,
                "It fixes the sparsity",
            )
        return global_goal(sparsity, compression, pattern)
    if sparsities is None:
        return Goal(sparsity, compression)
    if sparsity is not None or compression is not None or distribution != "uniform":
        raise invalid_argument(
            "sparsities", "None beside `sparsity`, `compression` or `distribution`", sparsities
        )
    if not isinstance(sparsities, Mapping) or not sparsities:
        raise invalid_argument("sparsities", "a dict from pattern to sparsity", sparsities)
    for pattern, value in sparsities.items():
        check_fraction(f"sparsities[{pattern!r}]", value)
    return None


def check_fraction(argument: str, value: object) -> None:
    """Raises a ``ValueError`` unless ``value`` is a number in [0, 1)."""
    if not is_number(value) or not 0 <= value < 1:  # type: ignore[operator]
        raise invalid_argument(argument, "a float in [0, 1)", value)
