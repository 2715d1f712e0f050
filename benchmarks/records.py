"""How the benchmarks keep what they measured: each row whole, with what it was measured by."""

import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from keras_l0.export import runner
from keras_l0.files import write_text
from keras_l0.versions import versions

RESULTS = Path(__file__).with_name("results")


def earlier(path: Path) -> list[dict[str, Any]]:
    """What an earlier run wrote."""
    return json.loads(path.read_text()) if path.exists() else []


def keep(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes all that is measured by now."""
    write_text(path, json.dumps(rows, indent=1))


def update(path: Path, names: Sequence[str], row: dict[str, Any], **peers: str) -> None:
    """Puts a row in the place of the one that has the same under these names, or behind all.

    It gains the day, the processor, and the versions of packages, those of ``peers`` among them.
    """
    made = {
        "day": date.today().isoformat(),
        "processor": f"{runner.processor()}, {os.cpu_count()} cores",
        "versions": {**versions(), **peers},
    }
    rows = earlier(path)
    places = [i for i, old in enumerate(rows) if all(old[name] == row[name] for name in names)]
    place = places[0] if places else len(rows)
    keep(path, [*rows[:place], {**row, **made}, *rows[place + 1 :]])


def conclude(path: Path, text: str) -> None:
    """Writes the table beside the file, and prints it."""
    write_text(path.with_suffix(".txt"), text + "\n")
    print(text)
