"""The user's own modules that ``--import`` names."""

import inspect
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from keras_l0.errors import invalid_argument


def own_objects(names: Sequence[str]) -> dict[str, Any]:
    """Imports modules, and gives the classes and functions that they define, by name.

    Keras finds registered classes by itself once they are imported; the others are what
    ``custom_objects`` of ``load_model`` is for.

    Args:
        names: names of modules, also of such in the current folder, or paths of ``.py`` files.

    Raises:
        ValueError: if one cannot be imported.
    """
    found = {}
    for name in names:
        module = _imported(name)
        for defined in vars(module).values():
            own = inspect.isclass(defined) or inspect.isfunction(defined)
            if own and defined.__module__ == module.__name__:
                found[defined.__name__] = defined
    return found


def _imported(name: str) -> ModuleType:
    try:
        if name.endswith(".py"):
            return _from_file(Path(name))
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)  # as `python -m` does
        return import_module(name)
    except Exception as error:  # the user's code may raise anything
        reason = f"{type(error).__name__}: {error}"
        expected = "a module that can be imported, or a .py file"
        raise invalid_argument("import", expected, name, reason) from error


def _from_file(path: Path) -> ModuleType:
    there = sys.modules.get(path.stem)
    if there is not None:
        if getattr(there, "__file__", None) == str(path.resolve()):
            return there
        raise ImportError(f"another module is called {path.stem}: rename the file")
    spec = spec_from_file_location(path.stem, path.resolve())
    assert spec is not None, "its suffix is .py"
    assert spec.loader is not None, "likewise"
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
