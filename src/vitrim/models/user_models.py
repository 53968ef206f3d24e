"""Builds a model of another library from what the user names: a function, or the place of one. It runs that code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from vitrim.errors import InputError

ModelSource = str | Callable[[], nn.Module]
"""A function that returns a model, or its place: `package.module:function` or `path/file.py:function`. Literal
arguments may follow: `monai.networks.nets:UNETR(in_channels=1, out_channels=3, img_size=64, spatial_dims=2)`."""

PLACE = re.compile(r"(.+?):\s*([A-Za-z_][\w.]*\s*(?:\(.*\))?)\s*", re.DOTALL)


def build_model(source: ModelSource) -> nn.Module:
    """Return the model that `source` builds. The code of the module or file that it names runs.

    Raises InputError if there is no such function, if it fails, or if it does not return a torch module.
    """
    if isinstance(source, nn.Module) or not (isinstance(source, str) or callable(source)):
        raise InputError(
            f"model must be a function that returns a model, or the place of one (package.module:function), not "
            f"{'a model' if isinstance(source, nn.Module) else repr(source)}"
        )
    name = source if isinstance(source, str) else getattr(source, "__name__", "the function")
    try:
        if isinstance(source, str):
            with _importable(source) as (function, arguments, named):
                built = function(*arguments, **named)
        else:
            built = source()
    except InputError:
        raise
    except Exception as error:  # it is the user's code
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{name} does not build a model: {type(error).__name__}: {reason}") from error
    if not isinstance(built, nn.Module):
        raise InputError(f"{name} returns a {type(built).__name__}, not a torch module")
    return built


@contextmanager
def _importable(source: str) -> Iterator[tuple[Callable[..., Any], list[Any], dict[str, Any]]]:
    """Give the function that `source` names and its arguments. Modules beside the file can be imported meanwhile."""
    found = PLACE.fullmatch(source)
    if found is None:
        raise InputError(f"model {source!r} names no function: write package.module:function or file.py:function")
    place, call = found.groups()
    name, arguments, named = _parsed(call, source)
    path = Path(place)
    before = list(sys.path)
    sys.path.insert(0, str(path.resolve().parent if path.suffix == ".py" else Path.cwd()))
    try:
        function: Any = _from_file(path) if path.suffix == ".py" else importlib.import_module(place)
        for part in name.split("."):
            if not hasattr(function, part):
                raise InputError(f"{place} has no {name}")
            function = getattr(function, part)
        if not callable(function):
            raise InputError(f"{name} of {place} is not a function")
        yield function, arguments, named
    finally:
        sys.path[:] = before


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    name = f"_vitrim_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


def _parsed(call: str, source: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name of the function in `call`, its arguments and its named arguments, all literals."""
    try:
        tree = ast.parse(call, mode="eval").body
        if not isinstance(tree, ast.Call):
            return call.strip(), [], {}
        arguments = [ast.literal_eval(argument) for argument in tree.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"the arguments in {source!r} must be literals, as in package.module:function(classes=3, size=(64, 64))"
        ) from error
    return ast.unparse(tree.func), arguments, named
