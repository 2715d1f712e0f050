"""The emulated processor, and the table of what was seen on it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from arm.emulation import PROCESSOR, ROOT, OnArm, run_on_arm
from keras_l0.text import table

# Runs on the other processor only.
collect_ignore = ["guest.py"]


@pytest.fixture(scope="session", autouse=True)
def emulated_system() -> None:
    """These tests are run with what ``make test-arm`` sets up, or fail."""
    if not (ROOT / ".complete").is_file():
        pytest.fail(f"{ROOT} is missing: run these tests by `make test-arm`.", pytrace=False)


@pytest.fixture
def on_arm(
    record_property: Callable[[str, list[str]], None],
    request: pytest.FixtureRequest,
) -> Callable[..., OnArm]:
    """Runs a file on the ``samples.npz`` beside it, and notes it for the table.

    Beside another file, ``over``, it notes also how many times fewer instructions it took.
    """

    def run(file: Path, over: OnArm | None = None) -> OnArm:
        found = run_on_arm(file, file.with_name("samples.npz"))
        count = "" if found.instructions is None else f"{found.instructions:,}"
        ratio = "" if over is None or found.fault else f"{1 / found.work_over(over):.2f}"
        deviation = found.fault[:40] or f"{max(found.deviation, found.plain_deviation):.1g}"
        name = request.node.name.removeprefix("test_")
        of = name[name.find("[") + 1 :].rstrip("]")
        record_property("on ARM", [f"{of}: {file.stem}", deviation, count, ratio])
        return found

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what ``on_arm`` noted."""
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "on ARM"
    ]
    if rows:
        title = f"On an emulated {PROCESSOR}, instructions of an invocation:"
        header = ["file", "deviation", "instructions", "dense over it"]
        terminalreporter.write_line(table(header, sorted(rows), title))
