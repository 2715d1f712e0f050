"""The program ``keras-l0``."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

COMMANDS = {
    "demo": "train, compress and export a small network",
    "compress": "compress a compiled model and export it",
    "summary": "count a model's zeros",
    "export": "write a sparse .tflite file that has been run",
    "reproduce": "make an experiment of the paper again",
    "search": "find settings for compress, on validation data",
    "bench": "time .tflite files against each other",
}
"""Each is a module of ``keras_l0.commands``, read when it is called: the help is there at once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: the command line without the program's name; ``sys.argv`` if ``None``.

    Returns:
        The exit status: 0, or 2 after one line on stderr.
    """
    try:
        options = parser().parse_args(arguments)
        _module(options.command).run(options)
    except Exception as error:  # backends have kinds of their own, and nobody is above this
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"keras-l0: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras-l0: interrupted", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the program."""
    whole = _Parser(prog="keras-l0", description="Keras 3 networks made small, and proven to run.")
    parts = whole.add_subparsers(
        title="commands", dest="command", required=True, parser_class=_Parser
    )
    for name, text in COMMANDS.items():
        parts.add_parser(name, help=text).command = name
    return whole


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and that has a command's options once it is asked."""

    command: str | None = None

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.command is not None:
            _module(self.command).add_options(self)
            self.command = None
        return super().parse_known_args(args, namespace)


def _module(command: str) -> Any:
    return import_module(f"keras_l0.commands.{command}")
