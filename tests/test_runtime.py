"""The table of what the runtime takes is what the runtime takes."""

import keras
import pytest

pytest.importorskip("ai_edge_litert", reason="running files needs LiteRT")
if keras.config.backend() != "tensorflow":
    pytest.skip("what it covers does not depend on the backend", allow_module_level=True)

from operators import FORMS, PAIRS, forms_taken, in_form, one_operator_file, samples, tolerance

from keras_l0.export.check import measure
from keras_l0.export.runtime import TAKES


@pytest.mark.parametrize(("kind", "operator"), PAIRS)
def test_the_forms_that_run_and_are_right_are_those_of_the_table(kind: str, operator: str) -> None:
    """A form is right if it is right each time: a wrong one may read memory never written."""
    dense = one_operator_file(kind, operator)
    files = {f"{form}-{i}": in_form(dense, form) for form in FORMS for i in range(3)}
    found = measure({"dense": dense} | files, samples(dense))
    right = {name for name, one in found.items() if one.deviation <= tolerance(kind)}
    assert "dense" in right, found["dense"]
    assert {form for form in FORMS if right >= {f"{form}-{i}" for i in range(3)}} == forms_taken(
        dense
    ), {name: one.fault or one.deviation for name, one in found.items()}


def test_the_table_names_nothing_that_is_not_tried() -> None:
    assert {(kind, operator) for kind in TAKES for operator in TAKES[kind]} <= set(PAIRS)
