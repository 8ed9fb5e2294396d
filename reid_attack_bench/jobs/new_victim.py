"""A new victim for a user to fill in, from the template skeleton.py."""

from __future__ import annotations

import importlib.resources
import keyword
import re
from pathlib import Path

from reid_attack_bench.errors import BenchError

_CLASS = "MyDefence"


def write_victim(file: Path, name: str = _CLASS) -> None:
    """Write the template to `file`, with `name` for its class.

    Raises:
        BenchError: the file exists or does not end in .py, or the name cannot be that of a class.
    """
    if file.suffix != ".py":
        raise BenchError(f"{file}: name it {file.with_suffix('.py')}, it is a Python file")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BenchError(f"--name {name}: a class cannot be called that; use letters, digits and _")
    template = importlib.resources.files("reid_attack_bench.jobs").joinpath("skeleton.py").read_text("utf-8")
    text = re.sub(rf"\b{_CLASS}\b", name, template).replace("FILE.py", file.name)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise BenchError(f"{file} exists already and was not changed: choose another name") from error
