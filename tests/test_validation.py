"""Checks of YAML files and of options: the place, what is expected, what was given."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field

from reid_attack_bench.errors import BenchError
from reid_attack_bench.validation import check_settings, checked, checked_options, read_yaml

if TYPE_CHECKING:
    from nowhere import Unknown


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Base:
    width: Annotated[int, Field(ge=1)] = 32


@dataclass(frozen=True)
class Settings(Base):
    rate: Annotated[float, Field(gt=0)] = 0.1
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    objective: Literal["metric", "mis-ranking"] = "metric"
    size: tuple[int, int] = (256, 128)
    betas: tuple[float, ...] = ()
    mean: tuple[float, float, float] | None = None
    file: str | Path | None = None
    trust: bool = False
    extra: Mapping[str, Any] | None = None
    version: ClassVar[int] = 1


def function(width: Annotated[int, Field(ge=1)] = 32, **others: Any) -> None: ...


class Ordinary:
    def __init__(self, width: Annotated[int, Field(ge=1)], *, size: tuple[int, int] = (1, 2)) -> None: ...


class Called:
    def __call__(self, width: Annotated[int, Field(ge=1)] = 32) -> None: ...


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width": 0}, "width must be a whole number of at least 1, not 0"),
        ({"width": True}, "width must be a whole number of at least 1, not true"),
        ({"width": 2.5}, "width must be a whole number of at least 1, not 2.5"),
        ({"rate": 0}, "rate must be a positive number, not 0"),
        ({"rate": "1e-3"}, "rate must be a positive number, not '1e-3': write 0.001"),
        ({"share": 2}, "share must be a number from 0 to 1, not 2"),
        ({"objective": "metrics"}, "must be one of metric, mis-ranking, not 'metrics': did you mean 'metric'?"),
        ({"size": 64}, "size must be a list of 2, not 64"),
        ({"size": [64]}, "size must be a list of 2, not [64]"),
        ({"size": [64, 32, 3]}, "size must be a list of 2, not [64, 32, 3]"),
        ({"size": [64, "x"]}, "size[1] must be a whole number, not 'x'"),
        ({"mean": [0.5, 0.5, None]}, "mean[2] must be a number, not null"),
        ({"file": 3}, "file must be text, not 3: put it in quotes"),
        ({"trust": "yes"}, "trust must be true or false, not 'yes'"),
        ({"extra": [1]}, "extra must be a mapping of names to values, not [1]"),
    ],
)
def test_a_wrong_option_says_what_is_expected(options: dict, says: str) -> None:
    with pytest.raises(BenchError, match=f"^gan: .*{re.escape(says)}$"):
        checked_options(Settings, options, "gan")


@pytest.mark.parametrize("factory", [Settings, function, Ordinary, Called()])
def test_classes_functions_and_dataclasses_alike(factory: Callable[..., Any]) -> None:
    assert checked_options(factory, {"width": 3}, "x") == {"width": 3}
    with pytest.raises(BenchError, match="x: width must be a whole number of at least 1, not 0"):
        checked_options(factory, {"width": 0}, "x")


def test_lists_become_tuples_and_whole_numbers_are_numbers() -> None:
    given = {"size": [64, 32], "betas": [0, 0.9], "rate": 1, "mean": None, "extra": {"a": [1]}}
    done = checked_options(Settings, given, "x")
    assert done == {"size": (64, 32), "betas": (0, 0.9), "rate": 1, "mean": None, "extra": {"a": [1]}}
    assert [type(each) for each in (done["rate"], *done["betas"])] == [int, int, float], (
        "numbers stay as they are given"
    )


def test_odd_annotations_never_break_a_plug_in() -> None:
    thing = object()

    def odd(
        a: Unknown,
        b: np.ndarray,
        c: Callable[[int], int],
        d: Iterable[int],
        e: Inner,
        g: 3,  # type: ignore[valid-type]
        h,
        i: int = thing,  # type: ignore[assignment]
        j: int = 1,
    ) -> None: ...

    options = {name: [1, 2] for name in "abcdegh"} | {"i": thing, "j": np.int64(3)}
    assert checked_options(odd, options, "x") == options
    assert checked_options(odd, options, "x")["d"] is options["d"]
    assert checked_options(len, {}, "x") == {}


def test_settings_made_in_python_are_checked_the_same() -> None:
    @dataclass(frozen=True)
    class Mine(Settings):
        def __post_init__(self) -> None:
            check_settings(self, "mine")

    assert Mine(size=[64, 32]).size == (64, 32)  # type: ignore[arg-type]
    for wrong in ({"width": 0}, {"share": math.nan}, {"objective": "x"}):
        with pytest.raises(BenchError, match=f"^mine: {next(iter(wrong))} must be"):
            Mine(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 3: 'a' is given twice, first in line 1"),
        ("x:\n  pgd: {steps: 1, steps: 2}\n", r"line 2: 'steps' is given twice"),
        ("- {1: a, 1: b}\n", r"line 1: '1' is given twice"),
        ("a: [1\n", "is not valid YAML"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(BenchError, match=says) as caught:
        read_yaml(path, "suite file")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_alias_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\n")
    assert read_yaml(path, "file") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 3, "y": 4}}


def test_a_name_that_yaml_reads_as_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("1: a\n")
    assert checked(dict[str, str], read_yaml(path, "file"), "the file") == {"1": "a"}
    path.write_text("2024-01-01: a\n")
    with pytest.raises(BenchError, match="the file has a name that is not text, such as a date: put it in quotes"):
        checked(dict[str, str], read_yaml(path, "file"), "the file")


def test_a_file_that_contains_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {b: *a}\n")
    with pytest.raises(BenchError, match="the file contains itself"):
        checked(dict, read_yaml(path, "file"), "the file")
