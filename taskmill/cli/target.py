"""`-A MODULE:APP`: finds the App, or says what was looked for and what was found."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import click

from taskmill.app import App
from taskmill.runtime.errors import ConfigError, TaskmillError

F = TypeVar("F", bound=Callable[..., Any])


def app_option(*, required: bool = False, help: str | None = None) -> Callable[[F], F]:
    """Adds `-A/--app MODULE:APP`, passed as `target`."""
    return click.option(
        "-A",
        "--app",
        "target",
        metavar="MODULE:APP",
        required=required,
        help=help or "Where the App is: a module to import, and its name in there.",
    )


def load_app(target: str) -> App:
    """The App at `target`, its module imported from the working directory or the path.

    Raises ConfigError, which names what is missing and the Apps that are there.
    """
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(f"-A {target!r}: expected MODULE:APP, such as shop.tasks:app")
    module = _import(target, module_name)
    if not hasattr(module, attribute):
        raise ConfigError(
            f"-A {target!r}: module {module_name} has no {attribute!r}; {_apps_in(module)}"
        )
    found = getattr(module, attribute)
    if not isinstance(found, App):
        kind = type(found).__name__
        raise ConfigError(
            f"-A {target!r}: {module_name}.{attribute} is of type {kind}, no App; "
            f"{_apps_in(module)}"
        )
    return found


def _import(target: str, name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        # In a clone, its folder of our name would hide the package from processes that are spawned.
        sys.path.insert(len(sys.path) if os.path.isdir("taskmill") else 0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"-A {target!r}: no module {error.name!r} in {here} or on Python's path"
            ) from error
        raise _broken(target, name, error) from error
    except TaskmillError as error:
        raise ConfigError(f"-A {target!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise _broken(target, name, error) from error


def _broken(target: str, name: str, error: BaseException) -> ConfigError:
    """The module was found, and failed: with what, and at which line."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, SyntaxError):
        where = f" at {error.filename}:{error.lineno}"
    text = " ".join(str(error).split())
    return ConfigError(
        f"-A {target!r}: importing {name} failed: {type(error).__name__}: {text}{where}"
    )


def _apps_in(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, App)]
    return f"Apps in there: {', '.join(names)}" if names else "there is no App in there"
