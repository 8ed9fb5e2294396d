"""Write a new victim from the template skeleton.py."""

from __future__ import annotations

import importlib.resources
import keyword
import re
from pathlib import Path

from reid_attack_bench.errors import BenchError

_CLASS = "MyDefence"


def write_victim(file: Path, name: str = _CLASS) -> None:
    """Write the template to `file`, with class name `name`.

    Raises:
        BenchError: the file exists or does not end in .py, or the name is not a valid class name.
    """
    if file.suffix != ".py":
        raise BenchError(f"{file} must end in .py: name it {file.with_suffix('.py')}")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BenchError(f"--name {name}: not a valid class name; use letters, digits and _")
    template = importlib.resources.files("reid_attack_bench.jobs").joinpath("skeleton.py").read_text("utf-8")
    text = re.sub(rf"\b{_CLASS}\b", name, template).replace("FILE.py", file.name)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise BenchError(f"{file} already exists and was not changed: choose another name") from error
