"""The documentation: its code runs, it names everything there is, and the site builds without a broken link.

How a fenced block of a page is tested, in order, in a folder of the page's own:

- ```python``` is executed; with title="FILE.py" it is written there instead;
- ```yaml``` must be valid in a suite; with title="FILE" it is written there instead, for a command to read;
- ```sh``` is run line by line; after <!-- not run: reason --> its commands are only parsed.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from reid_attack_bench import registry, validation
from reid_attack_bench.attacks.common.transfer import GradientOptions, TransferOptions
from reid_attack_bench.attacks.misranking.released import BEHAVIOURS
from reid_attack_bench.checks import check as conformance
from reid_attack_bench.cli import main as cli
from reid_attack_bench.cli import options, submission
from reid_attack_bench.contracts import ThreatModel, Victim
from reid_attack_bench.data import catalogue as datasets
from reid_attack_bench.errors import MissingWeightsError
from reid_attack_bench.jobs import folder
from reid_attack_bench.jobs.submission import archive, images, tables, trusted
from reid_attack_bench.report.analysis import (
    audit,
    compare,
    defences,
    findings,
    mean_drop,
    rank_order,
    same_images,
)
from reid_attack_bench.report.results import CostRow, cell_columns, clean_columns
from reid_attack_bench.steps.kinds import STEP_VERSIONS
from reid_attack_bench.suites import document, suite
from reid_attack_bench.suites import parse as suites_parse
from reid_attack_bench.zoo import catalogue as zoo
from tests.test_layers import MAY_IMPORT

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?"
    r"```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
PEOPLE = {"train_identities": 8, "test_identities": 4, "images_per_camera": 1, "queries_per_identity": 2}


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str
    is_run: bool


def read(page: str) -> str:
    return (DOCS / page).read_text()


def blocks(text: str) -> Iterator[Block]:
    for found in FENCE.finditer(text):
        yield Block(found["language"], found["title"] or "", found["text"], found["reason"] is None)


def section(text: str, heading: str) -> str:
    """From a heading to the next one of its level or above."""
    start = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert start, f"no heading {heading!r}"
    rest = text[start.end() :]
    end = re.search(rf"^#{{1,{len(start[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """Cells of every table row."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and not set(line) <= set("|-: ")
    ]


def named(text: str) -> set[str]:
    """What the first cells of a text's tables name, with the ends of intervals where a row says so."""
    names = set()
    for cells in rows(text):
        here = re.findall(r"`([^`]+)`", cells[0])
        ends = ("", "_low", "_high") if "each with `_low` and `_high`" in cells[-1] else ("",)
        names |= {name + end for name in here for end in ends}
    return names


def commands(block: Block) -> list[list[str]]:
    """The words of each command, without where its output goes."""
    lines = (shlex.split(line, comments=True) for line in block.text.splitlines())
    return [words[: words.index(">")] if ">" in words else words for words in lines if words]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module", autouse=True)
def rendered_once() -> Iterator[None]:
    """The same people for every command."""
    known: dict[str, Any] = {}
    render = datasets.render_domain

    def once(name: str, *, progress: Any, **settings: Any) -> Any:
        key = f"{name} {sorted(settings.items())}"
        if key not in known:
            known[key] = render(name, progress=progress, **settings)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "render_domain", once)
        yield


@pytest.mark.e2e
@pytest.mark.parametrize("page", [str(path.relative_to(DOCS)) for path in PAGES if "```" in path.read_text()])
def test_what_a_page_shows_runs(page: str, tmp_path: Path, store: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/store").symlink_to(store)
    for block in blocks(read(page)):
        if block.language == "sh":
            for words in commands(block):
                (run if block.is_run else parse)(words)
        elif block.title:
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, page, "exec"), {"__name__": "docs"})
        elif block.language == "yaml":
            valid_in_a_suite(yaml.safe_load(block.text))
        else:
            assert block.language in ("text", "toml"), f"{page} has a block in {block.language}"
    for path in tmp_path.glob("runs/*/*.csv"):
        assert undocumented(path) == set(), path


def run(words: list[str]) -> None:
    if words[0] != "reid-attack-bench":
        subprocess.run(words, check=True)
        return
    here = ["--workers", "1"] if words[1] in ("run", "evaluate") else []
    result = CliRunner().invoke(cli.cli, [*words[1:], *here], catch_exceptions=True)
    assert result.exception is None, f"{shlex.join(words)}: {result.exception!r}\n{result.output}"


def parse(words: list[str]) -> None:
    """A command that is not run must be one."""
    if words[0].rpartition("/")[2] != "reid-attack-bench":
        assert words[0] in ("make", "python3", ".", ".venv/bin/pip"), words
        return
    with cli.cli.make_context("reid-attack-bench", words[1:]) as context:
        name, command, rest = cli.cli.resolve_command(context, words[1:])
        with command.make_context(name, rest, parent=context) as inner:
            if name == "run":
                given = inner.params
                data = [name for text in given["data"] for name in text.split(",")]
                chosen = suites_parse.load(given["suite_name"], full=given["full"], data=data)
                labels = {entry.label for entry in chosen.attacks}
                assert set(options.parse_only(given["only"]).get("attack", [])) <= labels


def valid_in_a_suite(fragment: dict[str, Any]) -> None:
    base = {"datasets": {"plaza": PEOPLE}, "attacks": {"noise": {}}}
    chosen = suites_parse.parse({**base, **fragment})
    for kind, entries in (("attack", chosen.attacks), ("victim", chosen.victims)):
        for entry in entries:
            with contextlib.suppress(MissingWeightsError):  # of a published model
                registry.find(kind, entry.use).build(entry.options)


def undocumented(table: Path) -> set[str]:
    """Columns of a run's table that report.md does not name."""
    known = named(section(read("report.md"), f"`{table.name}`"))
    columns = set(pd.read_csv(table, nrows=0).columns)
    if table.name != "leaderboard.csv":
        return columns - known
    patterns = {re.sub(r"_e\d+_", "_eE_", name) for name in columns}
    patterns = {
        re.sub(
            r"^(?!worst|protocol|best_control).+_eE(_k\d+)?(_q\d+)?(_top\d+)?(_gallery|_both)?(_to_[a-z]+)?_",
            "ATTACK_B_",
            name,
        )
        for name in patterns
    }
    return patterns - known


def test_a_renamed_column_would_be_missed(tmp_path: Path) -> None:
    (tmp_path / "leaderboard.csv").write_text("rank,worst_e8_mAP_low,pgd-4_e8_k500_transfer_rank1,worst_e8_lost,new\n")
    assert undocumented(tmp_path / "leaderboard.csv") == {"worst_eE_lost", "new"}


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("matrix.csv", cell_columns()),
        ("clean.csv", clean_columns()),
        ("costs.csv", [field.name for field in fields(CostRow)]),
        ("mdr.csv", mean_drop.COLUMNS),
        ("defences.csv", defences.COLUMNS),
        ("same_images.csv", same_images.COLUMNS),
        ("rank_order.csv", rank_order.COLUMNS),
        ("findings.csv", [field.name for field in fields(findings.ClaimResult)]),
    ],
)
def test_every_column_is_documented_and_no_other(table: str, columns: Sequence[str]) -> None:
    assert named(section(read("report.md"), f"`{table}`")) == set(columns)


def test_columns_of_single_tables_are_documented() -> None:
    assert named(section(read("report.md"), "Comparing two runs")) == set(compare.COLUMNS)
    assert set(re.findall(r"`(\w+)`", section(read("report.md"), "`measures.csv`"))) >= set(folder.columns())


def options_in(text: str) -> dict[str, Any]:
    """Option → default, of the table of options in a section."""
    found = {}
    for cells in rows(text):
        if len(cells) == 3 and (name := re.fullmatch(r"`(\w+)`", cells[0])):
            found[name[1]] = yaml.safe_load(cells[1]) if cells[1] else inspect.Parameter.empty
    return found


def plain(value: Any) -> Any:
    return [plain(each) for each in value] if isinstance(value, tuple) else value


SHARED = {"Options on the gradient": GradientOptions, "Options on the steps": TransferOptions}
"""Sections with options that several attacks inherit."""


def shared_options(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for title, base in SHARED.items():
        if issubclass(registry.find("attack", name).factory, base):
            found |= options_in(section(read("attacks/transfer.md"), title))
    return found


def options_of(kind: str, name: str) -> dict[str, Any]:
    parameters = inspect.signature(registry.find(kind, name).factory).parameters
    return {option: plain(parameter.default) for option, parameter in parameters.items()}


def shipped(kind: str) -> list[str]:
    """Ours, not those of whatever else is installed."""
    return [name for name, entry in registry.available(kind).items() if entry.value.startswith("reid_attack_bench.")]


SAME = {
    "misranking-recommended": "misranking",
    "square-distances": "square",
    "square-topk": "square",
    **dict.fromkeys(("sma", "odfa", "i-fgsm-bai", "mi-fgsm-bai", "fna", "ti-dim"), "metric_pgd"),
    "openvino": "torchscript",
    "torch-export": "torchscript",
    "onnx": "torchscript",
}
"""What has the options of another one, but for those it gives itself."""


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("attack", "victim") for name in shipped(kind)])
def test_every_attack_and_victim_is_documented_with_its_options_and_defaults(kind: str, name: str) -> None:
    pages = [read("victims.md")] if kind == "victim" else [path.read_text() for path in DOCS.glob("attacks/*.md")]
    found: dict[str, Any] = {}
    for each in (SAME.get(name, name), name):
        (page,) = (text for text in pages if re.search(rf"^#+ `{each}`$", text, re.MULTILINE))
        found |= options_in(section(page, f"`{each}`"))
    if kind == "attack":
        found = {**shared_options(name), **found}
    assert found == options_of(kind, name)
    if kind == "attack":
        assert f"[`{name}`]" in read("attacks/index.md")


def test_every_behaviour_of_the_released_code_is_documented() -> None:
    assert named(section(read("attacks/misranking.md"), "Paper, released code, this implementation")) == set(BEHAVIOURS)


def test_every_key_of_a_suite_is_documented() -> None:
    text = read("suites.md")
    assert named(section(text, "Top level")) == set(document.SuiteDocument.model_fields)
    assert named(section(text, "Victims")) == set(document.VictimDocument.model_fields) | set(document.ROLES)
    assert named(section(text, "Attacks")) == set(document.AttackDocument.model_fields)
    assert named(section(text, "Findings")) == set(document.FindingDocument.model_fields)
    assert set(document.ContenderDocument.model_fields) == {"attack", "epsilon", "pixels", "queries"}
    for key in ("extends", "presets", "full", "replace", "like"):
        assert f"`{key}" in section(text, "A suite from parts")
    for name in suites_parse.shipped():
        assert f"`{name}`" in section(text, "Shipped suites"), name
        assert not name.startswith("paper-") or f"`{name}`" in read("reproduce.md")
    for relation in suite.RELATIONS:
        assert f"`{relation}`" in read("concepts.md")


def test_published_models_and_the_fields_of_a_zoo_file_are_documented() -> None:
    text = read("zoo.md")
    table = rows(section(text, "What is there"))[1:]
    names = {cells[0].strip("`") + each for cells in table for each in re.findall(r"`([^`]+)`", cells[1])}
    assert names == set(zoo.shipped())
    for prefix, trained_on, size, distance in table:
        for each in re.findall(r"`([^`]+)`", trained_on):
            entry = zoo.find(prefix.strip("`") + each)
            assert (f"{entry.input[0]}×{entry.input[1]}", entry.distance) == (size, distance), entry.name
    fields_of = rows(section(text, "A zoo file of your own"))
    whole = next(index for index, cells in enumerate(fields_of) if cells[0] == "field of a model")
    assert {cells[0].strip("`") for cells in fields_of[1:whole]} == set(zoo.ZooDocument.model_fields)
    documented = {cells[0].strip("`"): yaml.safe_load(cells[1]) for cells in fields_of[whole + 1 :]}
    known = zoo.ModelDocument.model_fields
    assert documented == {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in known.items()
    }
    assert set(zoo.FigureDocument.model_fields) <= set(re.findall(r"`(\w+)`", text))


def test_data_sets_and_threat_models_are_documented() -> None:
    assert named(section(read("data.md"), "Synthetic domains")) == set(datasets._SYNTHETIC_DEFAULTS)
    readers = registry.available("data set")
    assert set(readers) <= named(read("data.md"))
    for name in readers:
        for option in inspect.signature(registry.find("data set", name).factory).parameters:
            assert f"`{option}`" in read("data.md")
    for name in datasets.names():
        assert f"`{name}`" in read("data.md")
    assert {field.name for field in fields(ThreatModel)} <= named(read("threat-models.md"))
    assert set(STEP_VERSIONS) == named(section(read("concepts.md"), "Plan and store"))


def test_limits_and_tolerances_of_verify_are_documented() -> None:
    text = section(read("security.md"), "Submissions")
    for words in (
        f"{archive.ENTRIES:,} files",
        f"{archive.FILES[archive.MANIFEST] // 2**20} MiB of text",
        f"{archive.TOTAL // 2**30} GiB in all",
        f"of {archive.RATIO} times",
        f"{trusted.CELLS:,} cells",
        f"{images.AS_STRONG:g} times as far",
        f"{images.STRENGTH:g} times as far",
    ):
        assert words in " ".join(text.split()), words
    assert (tables.TOLERANCE, tables.CLOSE, images.IMAGES) == (0.5, 0.01, 0.9), "half a point, 1 %, nine in ten"
    assert f"{validation.MOST_VALUES:,} values" in " ".join(read("security.md").split())
    options = {option for each in submission.verify_command.params for option in each.opts if option.startswith("--")}
    assert {"--victim", "--attack", "--trust", "--sample", "--seed", "--json"} <= options
    assert set(re.findall(r"--[a-z]+", text)) <= options


def test_the_contract_of_a_victim_is_documented() -> None:
    text = read("add-victim.md")
    attributes = {
        name for name in vars(Victim)["__annotations__"] if name not in ("adapted", "max_batch")
    }  # the harness sets them
    methods = {name for name, value in vars(Victim).items() if inspect.isfunction(value)} - {"forward"}
    assert named(section(text, "The contract")) == attributes | methods
    assert named(section(text, "What `check-victim` looks at")) == set(conformance._CHECKS)
    schema = json.loads((ROOT / "reid_attack_bench/jobs/submission/card.schema.json").read_text())
    assert named(section(text, "Submit it")) == set(schema["properties"])


def test_every_flag_of_the_audit_is_documented() -> None:
    table = section(read("audit.md"), "The audit")
    for name, severity in audit.SEVERITIES.items():
        assert f"| `{name}` | {severity} |" in table, name


def options_without_help() -> Iterator[str]:
    for name, command in walk(cli.cli, ""):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.help:
                yield f"{name} {parameter.opts[0]}"


def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from walk(each, f"{name} {below}".strip())


def test_every_option_of_the_command_line_has_a_help_text() -> None:
    assert list(options_without_help()) == []


def test_the_site_has_every_command_and_option(site: Path) -> None:
    page = (site / "cli.html").read_text()
    assert "Sentinel" not in page, "a missing default is none"
    parts = re.split(r'<h[1-6] id="reid-attack-bench-?([^"]*)"', page)
    sections = {parts[i]: parts[i + 1] for i in range(1, len(parts), 2)}
    for name, command in walk(cli.cli, ""):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1] in sections[name.replace(" ", "-")], (name, parameter.opts)


def test_the_site_asks_nothing_of_the_network(site: Path) -> None:
    for path in site.glob("*.html"):
        text = path.read_text()
        assert re.findall(r"<(?:script|img|iframe|source)[^>]+src=.?https?:[^>]*>", text) == []
        assert re.findall(r"<link[^>]+href=.?https?:[^>]*>", text) == []
    for path in site.rglob("*.css"):
        assert re.findall(r"url\(.?https?:|@import", path.read_text()) == []


def test_the_architecture_page_says_what_each_layer_may_import() -> None:
    base = MAY_IMPORT["contracts"]
    text = section(read("architecture.md"), "What may import what")
    assert base <= set(re.findall(r"`(\w+)`", text[: text.index("|")]))
    packages: set[str] = set()
    for name, _, imports in rows(text)[1:]:
        allowed = packages.copy() if imports == "all of the above" else set(re.findall(r"`(\w+)`", imports))
        for layer in re.findall(r"`(\w+)`", name):
            assert allowed == MAY_IMPORT[layer] - base - {"torchreid_import"}, layer
            packages.add(layer)
    assert packages == set(MAY_IMPORT) - base - {"torchreid_import", "__init__", "__main__"}


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_files_that_contributors_are_sent_to_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in re.findall(r"`([a-z_./-]+(?:/|\.py|\.yaml|\.json))`", text):
        assert (ROOT / name).exists() or (ROOT / "reid_attack_bench" / name).exists(), name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_at_the_root_lead_to_files_that_are_there(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text()):
        assert (ROOT / target).exists(), target
