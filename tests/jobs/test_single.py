"""fit and craft: one attack outside a matrix, on a folder of a user's own images. Through the command line."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from reid_attack_bench.attacks.noise import Noise
from reid_attack_bench.cli import main as cli
from reid_attack_bench.contracts import ThreatModel
from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.folder import ReadyAttack, craft_folder
from tests.conftest import TOY, tiny_document

RECIPE, READY, LEARNER = (f"{TOY}:{name}" for name in ("ToyRecipe", "ToyVictim", "Learner"))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path):
    """Run the command line in an empty folder: bench(…) → what it prints; with `fails`, its one line of error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, fails: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["reid-attack-bench", *map(str, arguments)])
        if not fails:
            cli.main()
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as caught:
            cli.main()
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert caught.value.code == 1
        assert error.startswith("error: ")
        return error

    yield run
    torch.use_deterministic_algorithms(False)  # a run asks for it, and this is the process of all tests


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_document(), sort_keys=False))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Pictures of three sizes and two formats, one of them lying on its side, and a file that is none."""
    folder = tmp_path / "mine"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def picture(height: int, width: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    for name in ("b.png", "c.PNG"):
        picture(64, 32).save(folder / name)
    picture(41, 90).save(folder / "a.jpg")
    sideways = Image.Exif()
    sideways[0x0112] = 6
    picture(20, 50).save(folder / "turned.jpeg", exif=sideways)
    picture(24, 24).convert("RGBA").save(folder / "clear.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB")).astype(int)


def measured(out: Path) -> dict[str, dict[str, str]]:
    with (out / "measures.csv").open() as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


@pytest.mark.e2e
def test_fit_and_craft(bench, tiny_yaml: Path, images: Path, tmp_path: Path) -> None:
    said = bench("fit", "learner", "--source", "toy", "--data", "plaza", "--suite", tiny_yaml, "--epsilon", 6,
                 "--out", "learner.safetensors")  # fmt: skip
    assert "learner, epsilon 6/255, fitted against toy@plaza: learner.safetensors" in said
    bench("craft", "--attack", "learner.safetensors", "--images", images, "--out", "adv", fails=True)
    # the toy attack's noise has one size, and only the images of that size can take it
    for name in ("a.jpg", "turned.jpeg", "clear.png"):
        (images / name).unlink()
    said = bench("craft", "--attack", "learner.safetensors", "--images", images, "--out", "adv")
    assert "2 images in adv: epsilon 6/255, largest change 6/255" in said
    rows = measured(tmp_path / "adv")
    assert sorted(path.name for path in (tmp_path / "adv").iterdir()) == ["b.png", "c.png", "measures.csv"]
    for name, row in rows.items():
        change = pixels(tmp_path / "adv" / f"{Path(name).stem}.png") - pixels(images / name)
        assert float(row["linf"]) == abs(change).max() == 6
        assert float(row["pixels_changed"]) == (change != 0).any(axis=2).sum()
        assert float(row["l2"]) == pytest.approx(np.sqrt((change**2).sum()) / 255, abs=1e-4)
        assert 0 < float(row["ssim"]) < 1
        assert row["grid"]
        assert row["lpips"] == ""
    again = {path.name: path.read_bytes() for path in (tmp_path / "adv").iterdir()}
    bench("craft", "--attack", "learner.safetensors", "--images", images, "--out", "again")
    assert again == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}


@pytest.mark.e2e
def test_the_file_says_what_it_is_and_the_fit_is_the_suite_s(bench, tiny_yaml: Path, tmp_path: Path) -> None:
    fit = ("fit", "learner", "--source", "toy@station", "--suite", tiny_yaml, "--out", "x.safetensors")
    bench(*fit)
    with safe_open(tmp_path / "x.safetensors", "pt") as stream:
        about = json.loads(stream.metadata()["attack"])
        assert list(stream.keys()) == ["noise"]
    assert about["use"] == f"{TOY.resolve()}:Learner"
    assert (about["source"], about["data"], about["seed"]) == ("toy@station", "station", 0)
    assert about["threat"] == asdict(ThreatModel(8))
    victim = next((tmp_path / "runs/store/victim").iterdir())
    card = json.loads((victim / "card.json").read_text())
    assert about["source_digest"] == card["weights"]
    # the suite's own steps, so that running it afterwards fits nothing twice
    plan = bench("run", tiny_yaml, "--dry-run", "--json")
    states = {step["key"]: step["state"] for step in map(json.loads, plan.splitlines())}
    assert states[about["key"]] == "stored"
    before = (tmp_path / "x.safetensors").read_bytes()
    bench(*fit)
    assert (tmp_path / "x.safetensors").read_bytes() == before


def test_gradient_attacks_craft_without_a_fit_at_every_size(
    bench, tiny_yaml: Path, images: Path, tmp_path: Path
) -> None:
    arguments = ("craft", "--attack", "pgd", "--source", READY, "--images", images, "--suite", tiny_yaml)
    bench(*arguments, "--option", "steps=3", "--epsilon", 4, "--out", "adv")
    rows = measured(tmp_path / "adv")
    assert {name: (row["height"], row["width"]) for name, row in rows.items()} == {
        "a.jpg": ("41", "90"), "b.png": ("64", "32"), "c.PNG": ("64", "32"), "clear.png": ("24", "24"),
        "turned.jpeg": ("50", "20"),
    }  # fmt: skip
    assert {row["linf"] for row in rows.values()} == {"4.0000"}
    assert not (tmp_path / "runs/store/data").exists(), "a ready victim needs no data set"
    bench(*arguments, "--pixels", 30, "--out", "few")
    assert all(0 < float(row["pixels_changed"]) <= 30 for row in measured(tmp_path / "few").values())


@pytest.mark.e2e
def test_misranking_and_gap_craft_from_their_files_without_their_source(
    bench, tiny_yaml: Path, images: Path, tmp_path: Path
) -> None:
    small = {
        "gap": ["width=2", "steps=2", "batch=4"],
        # two steps at the default rate leave some networks with noise that rounds to nothing
        "misranking": [
            "width=2",
            "discriminator_width=2",
            "steps=6",
            "learning_rate=0.01",
            "batch_identities=2",
            "batch_instances=2",
        ],
    }
    for attack, settings in small.items():
        options = [part for setting in settings for part in ("--option", setting)]
        file = f"{attack}.safetensors"
        bench("fit", attack, "--source", RECIPE, "--data", "plaza", "--suite", tiny_yaml, *options, "--out", file)
        bench("craft", "--attack", file, "--images", images, "--out", attack)
        rows = measured(tmp_path / attack)
        assert len(rows) == 5
        assert all(1 <= float(row["linf"]) <= 8 for row in rows.values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "learnr", "--source", "toy@plaza", "--out", "x.safetensors"], "no attack is called 'learnr'"),
        (["fit", "learner", "--source", "toi", "--data", "plaza", "--out", "x.safetensors"], "no victim is called"),
        (["fit", "learner", "--source", "toy", "--out", "x.safetensors"], "name the data set with --data"),
        (["fit", "learner", "--source", READY, "--out", "x.safetensors"], "attack learner learns: name the data set"),
        (["fit", "learner", "--source", "toy@plaza", "--data", "station", "--out", "x.safetensors"], "on plaza"),
        (["fit", "learner", "--source", "toy", "--data", "plazza", "--out", "x.safetensors"], "did you mean 'plaza'"),
        (["fit", "learner", "--source", "toy", "--data", "plaza", "--out", "x.pt"], "name it x.safetensors"),
        (["fit", "pgd", "--source", READY, "--out", "x.safetensors"], "is not learned and needs no file: use craft"),
        (["craft", "--attack", "pgd", "--images", "mine", "--out", "adv"], "give its source with --source"),
        (["craft", "--attack", "no.safetensors", "--images", "mine", "--out", "adv"], "does not exist: make it with"),
        (["craft", "--attack", "bad.safetensors", "--images", "mine", "--out", "adv"], "is not a safetensors file"),
        (["craft", "--attack", "plain.safetensors", "--images", "mine", "--out", "adv"], "is not a fitted attack"),
        (["craft", "--attack", "noise", "--source", READY, "--images", "none", "--out", "adv"], "none is not a folder"),
        (["craft", "--attack", "noise", "--source", READY, "--images", "mine", "--out", "mine"], "be overwritten"),
        (["craft", "--attack", "noise", "--source", READY, "--images", ".", "--out", "adv"], "holds no image, only"),
        (
            ["craft", "--attack", "metric_pgd", "--option", "references=same_identity", "--source", READY,
             "--images", "mine", "--out", "adv"],
            "needs gallery and labels, which a folder of images does not have",
        ),
        (
            ["craft", "--attack", f"{TOY}:Cheat", "--source", READY, "--images", "mine", "--out", "adv"],
            "exceeded its L-inf budget",
        ),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(bench, tiny_yaml: Path, images: Path, tmp_path: Path, arguments, says: str) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert says in bench(*arguments, "--suite", tiny_yaml, fails=True)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("broken.png", b"no image", "broken.png is not a readable image"),
        ("b.jpg", None, "b.jpg and b.png would both become b.png"),
        ("deep.png", "I;16", "deep.png has more than 8 bits per channel"),
        ("thin.png", "thin", "thin.png: checkerboard energy needs images of at least 16×16 pixels, not 64×12"),
    ],
)
def test_images_that_cannot_be_attacked_are_named(
    bench, tiny_yaml: Path, images: Path, name: str, content: bytes | str | None, says: str
) -> None:
    if isinstance(content, bytes):
        (images / name).write_bytes(content)
    elif content == "I;16":
        Image.fromarray(np.zeros((32, 32), np.uint16)).save(images / name)
    elif content == "thin":
        Image.fromarray(np.zeros((64, 12, 3), np.uint8)).save(images / name)
    else:
        Image.open(images / "b.png").save(images / name)
    arguments = ("craft", "--attack", "noise", "--source", READY, "--images", images, "--suite", tiny_yaml)
    assert says in bench(*arguments, "--out", "adv", fails=True)


@pytest.mark.e2e
def test_another_model_is_not_taken_for_the_source(bench, tiny_yaml: Path, images: Path) -> None:
    bench("fit", "learner", "--source", "toy", "--data", "plaza", "--suite", tiny_yaml, "--out", "x.safetensors")
    craft = ("craft", "--attack", "x.safetensors", "--images", images, "--out", "adv", "--suite", tiny_yaml)
    assert "is not the model that the attack was fitted against" in bench(*craft, "--source", READY, fails=True)
    assert "was fitted for its budget" in bench(*craft, "--epsilon", 3, fails=True)


def test_a_folder_has_nobody_to_impersonate(images: Path, tmp_path: Path) -> None:
    ready = ReadyAttack("noise", Noise(), ThreatModel(impersonate="random"), None, None)
    with pytest.raises(BenchError, match="attack noise impersonates, and images of a folder have no identities"):
        craft_folder(ready, images, tmp_path / "adv")
