"""Plug-ins: ours and a user's come the same way, and every mistake gets one helpful line."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from reid_attack_bench import registry
from reid_attack_bench.contracts import Defence, LearnedAttack, Recipe
from reid_attack_bench.errors import BenchError
from tests.conftest import TOY
from tests.test_layers import ROOT, imports, layer


def test_ours_are_found_as_a_user_s_would_be() -> None:
    assert set(registry.available("attack")) >= {"noise", "fgsm", "pgd", "metric_fgsm", "metric_pgd", "misranking"}
    assert registry.find("attack", "pgd").build({"steps": 3}).steps == 3
    source = Path(registry.__file__).read_text()
    assert "attacks.pgd" not in source  # no private door: the harness never names a plug-in
    assert "victims.torchreid" not in source


def test_the_harness_never_imports_attacks_or_victims() -> None:
    plugins = ("attacks", "victims")
    across = [each for each in imports(ROOT) if layer(each.imported) in plugins and layer(each.importer) not in plugins]
    assert across == []


def test_from_a_file() -> None:
    plugin = registry.find("victim", f"{TOY}:ToyRecipe")
    assert plugin.key == "toy.py:ToyRecipe"
    assert plugin.short_name == "ToyRecipe"
    assert plugin.build({"steps": 2}).steps == 2
    assert registry.configuration(plugin.build({})) == {"seed": 0, "steps": 4}


def test_the_code_of_a_file_is_part_of_its_identity(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("class A:\n    x = 1\n")
    before = registry.find("attack", f"{path}:A")
    path.write_text("class A:\n    x = 2\n")
    after = registry.find("attack", f"{path}:A")
    assert before.code != after.code
    assert (before.factory.x, after.factory.x) == (1, 2)


@pytest.mark.parametrize(
    ("kind", "key", "says"),
    [
        ("attack", "pdg", "did you mean 'pgd'"),
        ("victim", "torchried", "did you mean 'torchreid'"),
        ("attack", "no_such_file.py:X", "does not exist"),
        ("victim", str(TOY), "write FILE.py:NAME"),
        ("victim", f"{TOY}:ToyRecip", "did you mean 'ToyRecipe'"),
    ],
)
def test_unknown_names(kind: str, key: str, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        registry.find(kind, key)


ANNOTATED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated, Literal
from pydantic import Field
from reid_attack_bench.contracts import Attack

class Base(Attack):
    needs = frozenset()
    def craft(self, *a): ...

@dataclass(frozen=True)
class Data(Base):
    steps: Annotated[int, Field(ge=1)] = 3

class Plain(Base):
    def __init__(self, steps: int = 3, size: tuple[int, int] = (1, 1), odd: Nowhere = 0):
        self.steps, self.size, self.odd = steps, size, odd

def function(steps: Literal[3, 5] = 3):
    return Plain(steps)
"""


def test_options_are_checked_against_annotations(tmp_path) -> None:
    """Those of a class, a function and a dataclass in a user's file; an annotation that says nothing breaks nothing."""
    path = tmp_path / "mine.py"
    path.write_text(ANNOTATED)
    for name, expected in (
        ("Data", "a whole number of at least 1"), ("Plain", "a whole number"), ("function", "one of 3, 5"),
    ):  # fmt: skip
        plugin = registry.find("attack", f"{path}:{name}")
        assert plugin.build({"steps": 5}).steps == 5
        with pytest.raises(BenchError, match=f"^mine.py:{name}: steps must be {expected}, not 'many'$"):
            plugin.build({"steps": "many"})
    built = registry.find("attack", f"{path}:Plain").build({"size": [2, 3], "odd": [1]})
    assert (built.size, built.odd) == ((2, 3), [1])


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(BenchError, match=r"no option 'step'.*did you mean 'steps'"):
        registry.find("attack", "pgd").build({"step": 3})


@pytest.mark.parametrize(
    ("text", "says"),
    [("import nothing_like_this\n", ":1 does not import.*nothing_like_this"), ("x = (\n", "SyntaxError")],
)
def test_a_file_that_does_not_import_names_the_line(tmp_path, text: str, says: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(BenchError, match=says):
        registry.find("victim", f"{path}:X")


def test_two_of_one_name_are_an_error_that_names_both(monkeypatch) -> None:
    entries = [
        importlib.metadata.EntryPoint("pgd", value, registry.GROUPS["attack"])
        for value in ("one.mod:PGD", "other.mod:PGD")
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    with pytest.raises(BenchError, match=r"registered as 'pgd': one\.mod:PGD and other\.mod:PGD"):
        registry.available("attack")


@pytest.mark.parametrize(
    ("kind", "body", "base"),
    [
        ("attack", "    def craft(self, source, batch, threat, generator): ...", "Attack"),
        ("attack", "    def fit(self, *a): ...\n    def craft(self, *a): ...", "LearnedAttack"),
        ("victim", "    def fit(self, data, context): ...\n    def load(self, state): ...", "Recipe"),
        ("victim", "    def defend(self, victim, state=None): ...", "Defence"),
        ("victim", "    def fit(self, *a): ...\n    def defend(self, *a): ...", "LearnedDefence"),
        ("victim", "    def embed(self, images): ...", "Victim"),
    ],
)
def test_a_class_without_the_base_of_its_kind_is_told_which_to_inherit(
    tmp_path: Path, kind: str, body: str, base: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"class Mine:\n    needs = frozenset()\n{body}\n")
    with pytest.raises(BenchError, match=rf"mine\.py:Mine: Mine does not inherit .*write class Mine\({base}\)"):
        registry.find(kind, f"{path}:Mine").build({})


def test_an_attack_that_learns_must_say_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from reid_attack_bench.contracts import Attack\nclass Mine(Attack):\n    needs = frozenset()\n"
        "    def fit(self, *a): ...\n    def craft(self, *a): ...\n"
    )
    with pytest.raises(BenchError, match=r"write class Mine\(LearnedAttack\)"):
        registry.find("attack", f"{path}:Mine").build({})


def test_a_class_that_leaves_a_method_out_is_named_with_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from reid_attack_bench.contracts import Attack\nclass Mine(Attack):\n    needs = frozenset()\n")
    with pytest.raises(BenchError, match=r"mine\.py:Mine: class Mine does not define craft"):
        registry.find("attack", f"{path}:Mine").build({})


def test_a_plugin_knows_what_its_class_makes() -> None:
    assert registry.find("victim", "torchreid").makes(Recipe)
    assert registry.find("victim", "jpeg").makes(Defence)
    assert not registry.find("victim", "jpeg").makes(Recipe)
    assert registry.find("attack", "gap").makes(LearnedAttack)
    assert not registry.find("attack", "pgd").makes(LearnedAttack)
