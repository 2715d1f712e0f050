"""The libraries that ours is held against, in a virtual environment of their own."""

import json
import subprocess
from pathlib import Path

PYTHON = Path(__file__).parent.parent / ".peers/bin/python"
PACKAGES = ("tensorflow", "tf_keras", "tensorflow-model-optimization")


def versions() -> dict[str, str]:
    """The peers' versions; empty where they are not installed, which is then said."""
    code = (
        "import importlib.metadata, json; "
        f"print(json.dumps([importlib.metadata.version(name) for name in {PACKAGES!r}]))"
    )
    found = None
    if PYTHON.exists():
        found = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    if found is None or found.returncode:  # an installation that was broken off, too
        print("tfmot is skipped: `make peers` installs it.")
        return {}
    return {
        f"peers: {name}": version
        for name, version in zip(PACKAGES, json.loads(found.stdout), strict=True)
    }
