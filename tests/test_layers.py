"""The layers: which package may import which. Imports are read from the source, those inside functions too."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reid_attack_bench import registry

ROOT = Path(__file__).parents[1]
BENCH = "reid_attack_bench"
FOLDERS = {"reid_attack_bench": BENCH, "attacks": f"{BENCH}.attacks", "victims": f"{BENCH}.victims"}
PLUGINS = rf"{BENCH}\.(attacks|victims)\b"

_BASE = {"errors", "files", "mistakes", "text", "validation"}
_HARNESS = _BASE | {
    "contracts",
    "zoo",
    "metrics",
    "adversary",
    "data",
    "plugin_file",
    "registry",
    "suites",
    "checks",
    "steps",
    "plan",
    "execute",
    "store",
}

# Package or module → what it may import; itself, and the version in the root package, are always allowed.
# From the bottom up, as the architecture page draws it.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "text": set(),
    "mistakes": {"errors"},
    "validation": {"errors", "mistakes"},
    "torchreid_import": {"errors"},
    "plugin_file": {"errors", "files"},
    "store": {"errors", "files"},
    "contracts": _BASE,
    "zoo": _BASE,
    "metrics": _BASE | {"contracts", "zoo"},
    "adversary": _BASE | {"contracts"},
    "registry": _BASE | {"contracts", "plugin_file"},
    "data": _BASE | {"contracts", "registry", "torchreid_import"},
    "suites": _BASE | {"contracts", "metrics", "data"},
    "checks": _BASE | {"contracts", "metrics", "adversary", "data"},
    "steps": _BASE | {"contracts", "metrics", "adversary", "data", "checks"},
    "plan": _BASE | {"contracts", "metrics", "adversary", "data", "registry", "suites", "steps"},
    "execute": _BASE | {"contracts", "suites", "steps", "plan", "store", "plugin_file"},
    "report": _BASE | {"contracts", "metrics", "data", "suites", "checks", "steps", "store"},
    "jobs": _HARNESS | {"report"},
    "cli": _HARNESS | {"report", "jobs"},
    "attacks": _BASE | {"contracts", "metrics", "adversary", "data"},
    "victims": _BASE | {"contracts", "zoo", "metrics", "adversary", "data", "torchreid_import"},
    "__init__": {"jobs"},
    "__main__": {"cli"},
}


@dataclass(frozen=True)
class Import:
    """Module `importer` imports module `imported` at `path`:`line`."""

    importer: str
    imported: str
    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.importer} imports {self.imported}"


def modules(root: Path) -> dict[str, Path]:
    """Every module of the three packages by its import name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def layer(module: str) -> str:
    """The row of MAY_IMPORT that a module belongs to."""
    return [*module.split("."), "__init__"][1]


@functools.lru_cache(maxsize=1000)
def nodes(source: str) -> list[ast.AST]:
    """What the rules read of a file."""
    read = (ast.Import, ast.ImportFrom, ast.Constant, ast.Compare, ast.MatchValue)
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, read)]


def imports(root: Path) -> list[Import]:
    """Imports among the modules of the three packages, wherever they stand in a file."""
    known, found = modules(root), []
    for module, path in known.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node in nodes(path.read_text()):
            for target in _targets(node, package, known):
                while target not in known and "." in target:  # a name in a module
                    target = target.rpartition(".")[0]
                if target in known and target != module:
                    found.append(Import(module, target, str(path.relative_to(root)), node.lineno))
    return found


def _targets(node: ast.AST, package: str, known: dict[str, Path]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join([*parts, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def forbidden_imports(root: Path) -> Iterator[str]:
    for found in imports(root):
        here, there = layer(found.importer), layer(found.imported)
        if here not in MAY_IMPORT:
            yield f"{found}, but {here} has no row in MAY_IMPORT: add one"
        elif there != here and there not in MAY_IMPORT[here] | {"__init__"}:
            yield f"{found}, but {here} may import only {', '.join(sorted(MAY_IMPORT[here])) or 'nothing'}"


def circles(root: Path) -> Iterator[str]:
    """Modules that import each other, in one circle or more. The root package does not count: it imports on demand."""
    edges: dict[str, dict[str, Import]] = {module: {} for module in modules(root)}
    for found in imports(root):
        if found.imported != BENCH:
            edges[found.importer].setdefault(found.imported, found)
    reached = {module: _reached(module, edges) for module in edges}
    told: set[str] = set()
    for module, beyond in reached.items():
        if module in beyond and module not in told:
            circle = {other for other in beyond if module in reached[other]}
            told |= circle
            inside = [str(edges[a][b]) for a in sorted(circle) for b in sorted(edges[a]) if b in circle]
            yield f"import circle of {len(circle)} modules: {'; '.join(inside)}"


def _reached(module: str, edges: dict[str, dict[str, Import]]) -> set[str]:
    found: set[str] = set()
    waiting = list(edges[module])
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += edges[other]
    return found


def named_plugins(root: Path) -> Iterator[str]:
    """Modules of the harness that name an attack or victim: by its module, or in a condition by its registered name."""
    names = registered()
    for module, path in modules(root).items():
        if layer(module) in ("attacks", "victims"):
            continue
        for node in nodes(path.read_text()):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if re.match(PLUGINS, text) and not (layer(module) == "registry" and re.fullmatch(PLUGINS, text)):
                yield f"{_where(path, root, node)}: {module} names the module '{text}': go through the registry"
            for name in sorted(names.intersection(_compared(node))):
                yield f"{_where(path, root, node)}: {module} compares with '{name}', a registered plug-in"


def _where(path: Path, root: Path, node: ast.AST) -> str:
    return f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"


@functools.cache
def registered() -> frozenset[str]:
    """Names of our own attacks and victims."""
    groups = [importlib.metadata.entry_points(group=group) for group in registry.GROUPS.values()]
    return frozenset(entry.name for group in groups for entry in group if re.match(PLUGINS, entry.value))


def _compared(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Compare):
        parts: list[ast.expr] = [node.left, *node.comparators]
    elif isinstance(node, ast.MatchValue):
        parts = [node.value]
    else:
        return
    for part in parts:
        for each in part.elts if isinstance(part, ast.Tuple | ast.List | ast.Set) else [part]:
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield each.value


def violations(root: Path) -> list[str]:
    return [*forbidden_imports(root), *circles(root), *named_plugins(root)]


MEANT = {
    "torchreid_import compares with 'torchreid'": "the library",
    "data.synthetic.cloth compares with 'square'": "the shape of a print",
}


def test_the_packages_keep_to_their_layers() -> None:
    found = [line for line in violations(ROOT) if not any(part in line for part in MEANT)]
    assert not found, "\n".join(found)


def test_every_layer_is_there() -> None:
    missing = set(MAY_IMPORT) - {layer(module) for module in modules(ROOT)}
    assert not missing, f"MAY_IMPORT has rows for nothing: {missing}"


# The test is tested: each rule on a tree that breaks it.


def tree(root: Path, **files: str) -> Path:
    """The three packages with these modules: `plan__plan` is reid_attack_bench/plan/plan.py."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path = path if name.startswith(("attacks", "victims")) else root / BENCH / path.relative_to(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in [path.parent, *path.parent.parents]:
            if folder == root:
                break
            (folder / "__init__.py").touch()
    return root


PLAIN = {
    "errors": "",
    "files": "from .errors import BenchError",
    "store": "",
    "contracts__attack": "import reid_attack_bench.errors",
    "metrics__ssim": "",
    "adversary__view": "",
    "registry": "GROUPS = {'attack': 'reid_attack_bench.attacks'}",
    "suites__suite": "",
    "steps__step": "from reid_attack_bench.contracts import attack",
    "plan__plan": "from reid_attack_bench.steps.other import x",
    "execute__runner": "",
    "report__rows": "from ..steps import step",
    "jobs__run": "def run():\n    from reid_attack_bench import execute",
    "cli__main": "from reid_attack_bench.jobs import other",
    "attacks__pgd": "from reid_attack_bench.contracts.attack import Attack",
    "victims__zoo": "",
}


def test_a_tree_that_keeps_to_its_layers_passes(tmp_path: Path) -> None:
    assert violations(tree(tmp_path, **PLAIN)) == []


@pytest.mark.parametrize(
    ("module", "text", "says"),
    [
        ("steps__step", "from reid_attack_bench.plan.plan import Plan", "steps/step.py:1: .*, but steps may"),
        ("steps__step", "def f():\n    from ..plan import plan", "step.py:2: .* imports reid_attack_bench.plan.plan"),
        ("report__rows", "import reid_attack_bench.execute.runner", "but report may import only"),
        ("report__rows", "from reid_attack_bench import plan", "imports reid_attack_bench.plan, but report"),
        ("report__rows", "from reid_attack_bench.jobs.run import run", "but report may import only"),
        ("report__rows", "from reid_attack_bench.cli.main import main", "but report may import only"),
        ("report__rows", "from reid_attack_bench.attacks.pgd import PGD", "but report may import only"),
        ("report__rows", "from reid_attack_bench.victims import zoo", "but report may import only"),
        ("jobs__run", "from reid_attack_bench.attacks import pgd", "imports reid_attack_bench.attacks.pgd, but jobs"),
        ("jobs__run", "from reid_attack_bench.cli import main", "imports reid_attack_bench.cli.main, but jobs"),
        ("attacks__pgd", "from ..victims.zoo import Zoo", "but attacks may import only"),
        ("victims__zoo", "from reid_attack_bench.attacks.pgd import PGD", "but victims may import only"),
        ("store", "from reid_attack_bench.contracts import attack", "but store may import only errors, files"),
        ("files", "from reid_attack_bench import store", "but files may import only errors"),
        ("metrics__ssim", "from reid_attack_bench.report.rows import Row", "but metrics may import only"),
        ("contracts__attack", "from reid_attack_bench.metrics import ssim", "but contracts may import only"),
        ("suites__suite", "from reid_attack_bench.plan.plan import Plan", "but suites may import only"),
        ("adversary__view", "from reid_attack_bench.steps import step", "but adversary may import only"),
        (
            "contracts__attack",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from reid_attack_bench.store import Store",
            "contracts/attack.py:3: .* but contracts may import only",
        ),
        ("utils", "from reid_attack_bench import files", "utils has no row in MAY_IMPORT"),
        ("steps__other", "from . import third", "circle of 2 modules: .*other.py:1: .*third.py:1: "),
        ("attacks__losses", "def f():\n    from .other import g", "import circle of 3 modules: "),
        ("cli__main", "x = 'reid_attack_bench.victims'", "cli/main.py:1: .* names the module 'reid_"),
        ("jobs__run", "use = 'reid_attack_bench.attacks.pgd:PGD'", "names the module 'reid_attack_bench.attacks.pgd:"),
        ("plan__plan", "def f(name):\n    return name == 'pgd'", "plan/plan.py:2: .* compares with 'pgd'"),
        ("plan__plan", "def f(name):\n    return name in ('mine', 'pgd')", "compares with 'pgd'"),
    ],
)  # fmt: skip
def test_each_rule_is_kept(tmp_path: Path, module: str, text: str, says: str) -> None:
    others = {
        "steps__third": "import reid_attack_bench.steps.other",
        "attacks__other": "from .more import x", "attacks__more": "from reid_attack_bench.attacks import losses",
        "steps__other": "", "attacks__losses": "",
    }  # fmt: skip
    found = violations(tree(tmp_path, **{**PLAIN, **others, module: text}))
    assert len(found) == 1, found
    assert re.search(says, found[0]), found
