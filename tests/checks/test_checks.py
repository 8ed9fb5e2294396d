"""What check-victim finds: one helpful line for every way to be wrong, and none for a victim that is right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from reid_attack_bench.checks.check import check
from reid_attack_bench.checks.result import CheckResult
from reid_attack_bench.checks.subject import sample
from reid_attack_bench.cli import main as cli
from reid_attack_bench.data.split import Split
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.check_victim import ready
from reid_attack_bench.jobs.skeleton import MyDefence
from tests.conftest import TOY
from tests.plugins import malformed
from tests.plugins.toy import ToyRecipe, ToyVictim

MALFORMED = Path(malformed.__file__)


def people(identities: int = 16, cameras: int = 3) -> Split:
    """Everybody wears four bright colours; every camera has its light, and the top left pixel says which it is."""
    rng = np.random.default_rng(0)
    colours = rng.integers(180, 250, (identities, 1, 4, 1, 3)).repeat(16, axis=2)
    light = rng.uniform(0.9, 1.0, (1, cameras, 1, 1, 1))
    images = np.clip(colours * light + rng.normal(0, 6, (identities, cameras, 64, 32, 3)), 0, 255).astype(np.uint8)
    images[:, :, 0, 0] = (np.arange(cameras) * 100)[None, :, None]
    labels = np.indices((identities, cameras)).reshape(2, -1)
    return Split(images.reshape(-1, 64, 32, 3), labels[0], labels[1])


DATA = people()


def findings(victim: object) -> list[CheckResult]:
    torch.manual_seed(0)
    return check(victim, DATA.images, DATA.identities, DATA.cameras)


def faults(found: list[CheckResult]) -> list[str]:
    return [finding.name for finding in found if finding.level == "fault"]


@pytest.mark.parametrize("victim", [MyDefence, malformed.Valid, malformed.DefendedByPurify, malformed.RandomAsDeclared])
def test_nothing_is_held_against_a_victim_that_is_right(victim) -> None:
    found = findings(victim())
    assert faults(found) == []
    assert {"output", "eval mode", "determinism", "gradient", "ranking", "distance", "speed"} <= {f.name for f in found}
    assert all(finding.advice for finding in found if finding.level == "fault")


def test_a_network_is_judged_with_its_logits() -> None:
    found = {finding.name: finding for finding in findings(ToyVictim())}
    assert found["logits"].evidence == "N×8, finite"
    assert found["gradient"].level == "ok"


@pytest.mark.parametrize(
    ("name", "check_name", "says"),
    [
        ("ReturnsTuple", "output", "returned a tuple for 2 images.*select it from the tuple"),
        ("OneRowForAll", "output", r"shape \(1, 72\) for 2 images.*one row for each image"),
        ("SqueezesTheBatch", "output", r"shape \(72,\) for 1 image\b.*squeeze\(\) drops the batch"),
        ("NotPooled", "output", r"\(2, 3, 8, 2\).*flatten\(1\)"),
        ("Whole", "output", "int64.*floating point values, from before rounding"),
        ("NotANumber", "output", "NaN or infinity for 2 random images.*its weights loaded"),
        ("NotANumberSometimes", "output", r"NaN or infinity for image \d+"),
        ("InNumpy", "output", "NumPy array.*return a torch tensor"),
        ("Fails", "output", "raises AttributeError: .*no attribute 'network'"),
        ("Detached", "gradient", "carry no gradient.*differentiable = False"),
        ("InfiniteGradient", "gradient", "NaN or infinite.*square roots"),
        ("DropsOut", "eval mode", r"training mode after \.eval\(\): Dropout, DropsOut, so dropout is active"),
        ("HidesItsNetwork", "eval mode", "modules in networks are in a plain list.*nn.ModuleList"),
        ("NormalisesOverTheBatch", "batch independence", "instead of alone.*not of the batch"),
        ("RunningStatistics", "side effects", "own parameters or buffers.*keep no state"),
        ("Noisy", "determinism", "two passes over the same images differ.*randomised = True"),
        ("Manhattan", "declarations", "distance is 'manhattan'.*euclidean"),
        ("WrongLogits", "logits", r"logits returned int64 .*for 4 images.*4×K"),
        ("OutputsDisagree", "logits", "outputs returns other embeddings than embed"),
        ("Changes", "side effects", "changes its input images.*in-place"),
        ("NormalisesTwice", "normalisation", "mean and std undone.*normalised twice"),
        ("NeverNormalises", "normalisation", "appears to expect normalised images: use preprocess"),
        ("Expects255", "value range", "appears to expect 0 to 255: multiply by 255"),
        ("Rounds", "gradient", "zero everywhere, though noise of 8/255 moves.*put the transformation into purify"),
        ("WrongBackward", "gradient", "differs from finite differences.*is not an ascent direction"),
        ("PurifiesNothing", "purify", "embed does not call purify"),
        ("PurifiesOutOfRange", "purify", r"values from .*stay in \[0, 1\]"),
        ("RejectsWithScores", "rejects", "rejects returned float32.*bool"),
        ("Constant", "ranking", "all images have the same embedding.*weights loaded"),
    ],
)
def test_each_malformed_victim_gets_one_helpful_line(name: str, check_name: str, says: str) -> None:
    found = findings(getattr(malformed, name)())
    wrong = [f for f in found if f.level == "fault" and f.name == check_name]
    assert len(wrong) == 1, found
    line = f"{wrong[0].evidence} → {wrong[0].advice}"
    assert "\n" not in line
    assert wrong[0].advice
    assert re.search(says, line), line


def test_the_other_distance_is_a_note() -> None:
    (distance,) = [f for f in findings(malformed.WrongDistance()) if f.name == "distance"]
    assert distance.level == "note"
    assert 'declare distance = "cosine"' in distance.advice


def test_a_rounding_in_purify_is_a_note_that_says_how_to_attack_it() -> None:
    (gradient,) = [f for f in findings(malformed.DefendedByPurify()) if f.name == "gradient"]
    assert gradient.level == "note"
    assert "adaptive: true" in gradient.advice


def test_a_random_defence_is_differentiated_with_the_draw_held() -> None:
    (gradient,) = [f for f in findings(malformed.RandomAsDeclared()) if f.name == "gradient"]
    assert gradient.level == "ok"
    assert "same random draw" in gradient.evidence


def test_the_sample_has_every_query_s_matches() -> None:
    data = people(identities=10, cameras=4)
    first = data.cameras == 0
    query = Split(data.images[first], data.identities[first], data.cameras[first])
    rest = Split(data.images[~first], data.identities[~first], data.cameras[~first])
    chosen = sample(query, rest, queries=5)
    assert len(chosen.images) == len(chosen.identities) == len(chosen.cameras) == 5 * 3
    assert np.unique(chosen.identities, return_counts=True)[1].tolist() == [3] * 5


def test_what_the_bench_trains_is_not_for_this() -> None:
    with pytest.raises(BenchError, match=r"requires a trained model, but toy\.py:ToyRecipe must be trained first"):
        ready(ToyRecipe(), "toy.py:ToyRecipe")
    with pytest.raises(BenchError, match=r"x is a int, not a reid_attack_bench\.contracts\.Victim"):
        ready(3, "x")


def run(*arguments: str) -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(cli.cli, ["check-victim", *arguments])
    return result.stdout, result.exception


@pytest.mark.e2e
def test_the_command_line_prints_a_table_or_json(tiny, write_suite) -> None:
    suite = write_suite(tiny)
    said, error = run(f"{TOY}:ToyVictim", "--suite", suite, "--option", "classes=3")
    assert error is None, error
    assert "eval mode" in said
    said, error = run(f"{MALFORMED}:Rounds", "--suite", suite, "--data", "station", "--json")
    assert isinstance(error, BenchError)  # main prints it and exits with 1
    assert "not ready to be attacked: gradient" in str(error)
    answer = json.loads(said)
    assert answer["dataset"] == "station"
    assert {"name", "level", "evidence", "advice"} == set(answer["findings"][0])


@pytest.mark.e2e
def test_a_label_of_the_suite_brings_its_settings(tiny, write_suite) -> None:
    tiny["victims"]["mine"] = {"use": f"{TOY}:ToyVictim", "options": {"classes": 5}}
    suite = write_suite(tiny)
    said, error = run("mine", "--source-label", "--suite", suite, "--json")
    assert error is None, error
    assert "N×5, finite" in [finding["evidence"] for finding in json.loads(said)["findings"]]
    for victim, says in (("toy", "must be trained first"), ("min", "did you mean 'mine'")):
        said, error = run(victim, "--source-label", "--suite", suite)
        assert says in str(error)
