"""How the experiments keep what they measured, so that a run goes on where it was broken off."""

import json
from pathlib import Path
from typing import Any

from keras_l0.files import write_text


def earlier(path: Path) -> list[dict[str, Any]]:
    """What an earlier run wrote."""
    return json.loads(path.read_text()) if path.exists() else []


def keep(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes all that is measured by now."""
    write_text(path, json.dumps(rows, indent=1))


def conclude(path: Path, text: str) -> None:
    """Writes the table beside the file, and prints it."""
    write_text(path.with_suffix(".txt"), text + "\n")
    print(text)
