"""Load FILE.py of a user: what it sees of its surroundings, and the digest of its code.

While the file loads, and while its classes are built, its folder is at the head of `sys.path`, so that modules beside
it import, and after it the folder of the package that it is in, if any; it sees an empty command line; what it prints
goes to standard error.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import digest_of, file_digest

_PACKAGE = __name__.partition(".")[0]

_BESIDE = "__reid_attack_bench_beside__"
"""Attribute of a module that was imported from beside a FILE.py: the name of the module of that file."""

_HELPERS = "__reid_attack_bench_helpers__"
"""Attribute of the module of a FILE.py: the modules that it imported from beside it, by name."""


def code_of(path: Path) -> str:
    """Digest of a file and of the modules beside it that it imports, as 16 hexadecimal digits.

    Imports are found without running the code, those in functions too, but no names that are put together. Without
    modules beside it, it is the digest of the file alone.
    """
    content = file_digest(path)
    folder = path.resolve().parent
    beside = {os.path.relpath(each, folder): file_digest(each) for each in modules_beside(path)}
    return digest_of([content, beside])[:16] if beside else content[:16]


def home_of(path: Path) -> Path:
    """The folder of the outermost package that a file is in; its own folder, if that is no package."""
    home = path.resolve().parent
    while (home / "__init__.py").is_file() and home.parent != home:
        home = home.parent
    return home


def load(path: Path, kind: str) -> tuple[ModuleType, str]:
    """The module of a file, and its `code_of`. A file that has not changed is loaded once in a process.

    Raises:
        BenchError: the file does not import, or ends the program.
    """
    code = code_of(path)
    package = path.resolve().parent.relative_to(home_of(path)).parts  # so that `from .net import make` works
    name = ".".join([*package, f"reid_attack_bench_plugin_{digest_of([str(path.resolve()), code])[:16]}"])
    module = sys.modules.get(name)
    if module is not None:
        return module, code
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module by name
    try:
        with surroundings(module, kind):
            spec.loader.exec_module(module)
    except BenchError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        line = _line_in(error, path)
        raise BenchError(f"{path}{line} does not import: {type(error).__name__}: {error}") from error
    return module, code


@contextmanager
def surroundings(module: ModuleType, kind: str) -> Iterator[None]:
    """Context in which the code of a FILE.py runs that is loaded as `module`, see the top of this file.

    Modules beside another FILE.py are out of sight, also those of the same name. Where two have one name, `sys.modules`
    keeps that of the file that ran last.

    Raises:
        BenchError: the code calls sys.exit.
    """
    path = Path(str(module.__file__)).resolve()
    own: dict[str, ModuleType] = vars(module).setdefault(_HELPERS, {})
    others = {name: each for name, each in list(sys.modules.items()) if _file_beside(each) not in ("", module.__name__)}
    for name in others:
        del sys.modules[name]
    sys.modules.update(own)
    before, arguments, bytecode = set(sys.modules), sys.argv, sys.dont_write_bytecode
    home, here = home_of(path), os.getcwd()
    folders = [str(each) for each in dict.fromkeys((path.parent, home))]
    # Python takes a compiled file for the same as a source that was changed within the same second
    sys.path[:0] = folders
    sys.argv, sys.dont_write_bytecode = [str(path)], True
    importlib.invalidate_caches()
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SystemExit as error:
        status = "" if error.code is None else f" ({error.code})"
        raise BenchError(
            f"{path.name}{_line_in(error, path)} ends the program with sys.exit{status}: a {kind} file is imported, so "
            'what it does as a program belongs under if __name__ == "__main__"'
        ) from error
    finally:
        for folder in folders:
            with suppress(ValueError):
                sys.path.remove(folder)
        os.chdir(here)
        sys.argv, sys.dont_write_bytecode = arguments, bytecode
        for name in set(sys.modules) - before:
            if any(_is_beside(name, each) for each in (path.parent, home)):
                own[name] = sys.modules[name]
                setattr(own[name], _BESIDE, module.__name__)
        for name, each in others.items():
            sys.modules.setdefault(name, each)


def modules_beside(path: Path) -> list[Path]:
    """Modules beside a file that it imports, directly or not, packages without __init__.py too."""
    path = path.resolve()
    if path.parent.name in ("site-packages", "dist-packages"):
        return []
    found, unread = {path}, [path]
    while unread:
        new = set(_imported_by(unread.pop(), path.parent, home_of(path))) - found
        found |= new
        unread += new
    return sorted(found - {path})


def _imported_by(path: Path, folder: Path, home: Path) -> Iterator[Path]:
    """Modules below `folder`, or in a package of `home`, that one of them imports."""
    places = dict.fromkeys((folder, home))
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError, OSError):  # what is wrong with it is said when it is imported
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            for place, alias in itertools.product(places, node.names):
                yield from _modules(place, alias.name)
        elif isinstance(node, ast.ImportFrom):
            starts = [path.parents[node.level - 1]] if node.level else places
            if node.level:
                yield from _packages(path.parents[node.level - 1], home)
            for start, alias in itertools.product(starts, node.names):
                yield from _modules(start, ".".join(filter(None, (node.module, alias.name))))


def _packages(folder: Path, home: Path) -> Iterator[Path]:
    """What makes packages of `folder` and of those that it is in, below `home`: importing from one runs them all."""
    for each in (folder, *folder.parents):
        if each != home and each.is_relative_to(home) and (each / "__init__.py").is_file():
            yield each / "__init__.py"


def _modules(start: Path, name: str) -> Iterator[Path]:
    """Files of the module `name` and of the packages that it is in, as far as they are below `start`."""
    place = start
    for part in name.split("."):
        if part == _PACKAGE:
            return
        place /= part
        yield from (each for each in (place.with_suffix(".py"), place / "__init__.py") if each.is_file())


def _is_beside(name: str, folder: Path) -> bool:
    """Whether the module of that name was imported from `folder`."""
    top = name.partition(".")[0]
    if top == _PACKAGE or not ((folder / top).is_dir() or (folder / f"{top}.py").is_file()):
        return False
    module = sys.modules[name]
    origin = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    return bool(origin) and Path(origin).resolve().is_relative_to(folder)


def _file_beside(module: object) -> str:
    """The module of the FILE.py beside which a module was found; empty for any other."""
    # not getattr: some modules make what they are asked for
    return str(vars(module).get(_BESIDE, "")) if isinstance(module, ModuleType) else ""


def _line_in(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f":{error.lineno}" if error.lineno else ""
    line = ""
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line
