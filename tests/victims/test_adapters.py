"""Models from files: what is loaded is what was saved, and every file that is wrong gets one helpful line."""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from reid_attack_bench import registry
from reid_attack_bench.cli import main as cli
from reid_attack_bench.contracts import IMAGENET_MEAN, IMAGENET_STD, Victim, preprocess, weights_digest
from reid_attack_bench.errors import BenchError, VictimError
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.steps.examine import examine
from reid_attack_bench.suites import parse
from reid_attack_bench.victims.backbones import TimmBackbone, TorchvisionBackbone
from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint
from reid_attack_bench.victims.exported import ExportedModel, OnnxModel, TorchScriptModel
from reid_attack_bench.victims.fastreid import FastReidModel
from reid_attack_bench.victims.torchreid_zoo import TorchreidModel, untrained_model
from reid_attack_bench.victims.weights import read_weights

CPU = torch.device("cpu")
ARCH, SIZE = "shufflenet_v2_x0_5", (32, 16)
IMAGES = torch.rand(3, 3, 32, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A network to export: N×3×32×16 → N×6."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).mean(dim=(2, 3))


class Pair(Net):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings = super().forward(images)
        return embeddings[:, :2] * 2, embeddings


class Baseline(Net):
    """As FastReID's: it normalises by itself, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1), False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.sub_(self.pixel_mean).div_(self.pixel_std))


@pytest.fixture(scope="module")
def trained() -> TorchreidModel:
    """Weights as of a trained model, statistics of batch normalisation too."""
    torch.manual_seed(0)
    model = untrained_model(ARCH, 7).train()
    model(torch.rand(8, 3, 32, 16))
    return TorchreidModel(model, ARCH, SIZE, "euclidean")


def same(victim: Victim, other: Victim) -> None:
    with torch.no_grad():
        torch.testing.assert_close(victim.eval().embed(IMAGES), other.eval().embed(IMAGES), atol=1e-5, rtol=0)


# checkpoints


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_a_checkpoint_in_every_wrapping(tmp_path: Path, trained, suffix: str, prefix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    state = {prefix + name: value.contiguous() for name, value in trained.model.state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, file)
    elif suffix == ".pth.tar":  # what torchreid's engine writes: rank1 is a number of NumPy
        torch.save({"state_dict": state, "epoch": 3, "rank1": np.float32(0.9), "optimizer": {"lr": 0.1}}, file)
    else:
        torch.save({"model": state} if suffix == ".pt" else state, file)
    victim = TorchreidCheckpoint(ARCH, file, input_size=SIZE, defence="JPEG")
    same(victim, trained)
    torch.testing.assert_close(victim.logits(IMAGES), trained.logits(IMAGES))
    assert victim.logits(IMAGES).shape == (3, 7), "the identities of the file, not of a default"
    assert victim.defence == "JPEG"
    examine(victim, CPU)


def test_a_checkpoint_without_classifier_has_no_logits(tmp_path: Path, trained) -> None:
    state = {n: v for n, v in trained.model.state_dict().items() if not n.startswith("classifier")}
    torch.save(state, tmp_path / "w.pth")
    victim = TorchreidCheckpoint(ARCH, tmp_path / "w.pth", input_size=SIZE)
    same(victim, trained)
    assert victim.logits(IMAGES) is None
    assert victim.outputs(IMAGES)[1] is None
    examine(victim, CPU)


def test_a_checkpoint_without_classifier_is_the_same_victim_in_every_process(tmp_path: Path) -> None:
    state = untrained_model("shufflenet_v2_x0_5", 8).state_dict()
    file = tmp_path / "weights.pth"
    torch.save({name: value for name, value in state.items() if not name.startswith("classifier")}, file)
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)  # torch's own seed differs between processes
        digests.add(weights_digest(TorchreidCheckpoint("shufflenet_v2_x0_5", file, input_size=(64, 32))))
        assert torch.initial_seed() == seed
    assert len(digests) == 1


def test_several_classifiers_are_read_off_one(tmp_path: Path) -> None:
    torch.save(untrained_model("pcb_p4", 5).state_dict(), tmp_path / "w.pth")
    assert TorchreidCheckpoint("pcb_p4", tmp_path / "w.pth", input_size=(64, 32)).logits(IMAGES).shape == (3, 5)


def test_what_does_not_fit_is_named(tmp_path: Path, trained) -> None:
    state = trained.model.state_dict()
    state["fc.weight"] = state.pop("conv1.0.weight")
    state["conv5.0.weight"] = state["conv5.0.weight"][:5]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        BenchError,
        match=r"missing conv1\.0\.weight; unexpected fc\.weight; of another shape conv5\.0\.weight \(5×192×1×1 in",
    ):
        TorchreidCheckpoint(ARCH, tmp_path / "w.pth")
    with pytest.raises(BenchError, match=r"as osnet_x0_25, does not fit: missing .*, .*, .* and \d+ more; unexpected"):
        TorchreidCheckpoint("osnet_x0_25", tmp_path / "w.pth")
    with pytest.raises(BenchError, match=f"did you mean '{ARCH}'"):
        TorchreidCheckpoint("shufflenet_v2_x05", tmp_path / "w.pth")


# reading


def test_a_pickle_that_needs_more_is_refused_until_it_is_trusted(tmp_path: Path, trained) -> None:
    file = tmp_path / "w.pth"
    torch.save({"state_dict": trained.model.state_dict(), "args": argparse.Namespace(lr=0.1)}, file)
    with pytest.raises(BenchError, match=r"is a pickle that needs argparse\.Namespace.*trust_pickle=True") as caught:
        TorchreidCheckpoint(ARCH, file)
    assert "\n" not in str(caught.value)
    same(TorchreidCheckpoint(ARCH, file, input_size=SIZE, trust_pickle=True), trained)


def test_a_whole_pickled_model_runs_no_code_before_it_is_trusted(tmp_path: Path) -> None:
    file, victim_of = tmp_path / "w.pth", tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (victim_of,)

    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": Bomb()}, file)
    with pytest.raises(BenchError, match="reading it can run code"):
        read_weights(file)
    assert not victim_of.exists()
    torch.save(Net(), file)
    with pytest.raises(BenchError, match=r"needs tests\.victims\.test_adapters\.Net"):
        read_weights(file)
    assert set(read_weights(file, trust_pickle=True)) == set(Net().state_dict())


@pytest.mark.parametrize(
    ("content", "suffix", "says"),
    [
        (None, ".pth", r"w\.pth does not exist; nothing is downloaded"),
        (b"", ".pth", r"w\.pth is empty"),
        (b"<!DOCTYPE html>" * 20, ".pth", r"w\.pth is a web page instead of weights: open its address in a browser"),
        (b"<!DOCTYPE html>" * 20, ".safetensors", "is a web page instead of weights: .* and give the path of what it"),
        (b"version https://git-lfs.github.com/spec/v1\n", ".pth", "is a Git-LFS pointer instead of weights: run git"),
        (b"\x08\x07\x12\x07pytorch", ".pth", "is an ONNX model"),
        ("cut", ".pth", r"w\.pth ends early, after 3000 bytes: it was not copied to its end"),
        ("cut", ".safetensors", "ends early, after 3000 bytes"),
        ({"epoch": 3, "best": 0.5}, ".pth", "holds no state dict: its entries are epoch, best; .*state_dict or model"),
        ([torch.zeros(1)], ".pth", "holds a list instead of weights"),
        ("script", ".pth", "is a TorchScript archive: use TorchScriptModel"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, content, suffix: str, says: str) -> None:
    file = tmp_path / f"w{suffix}"
    if content == "cut":
        (save_file if suffix == ".safetensors" else torch.save)({"a": torch.rand(2000)}, file)
        file.write_bytes(file.read_bytes()[:3000])
    elif content == "script":
        scripted(Net(), file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(BenchError, match=says) as caught:
        read_weights(file)
    assert "\n" not in str(caught.value)


# backbones


@pytest.mark.parametrize(
    ("arch", "features"),
    [("resnet18", 512), ("squeezenet1_1", 512), ("shufflenet_v2_x0_5", 1024), ("mobilenet_v3_small", 1024)],
)
def test_a_torchvision_model_gives_its_pooled_features(tmp_path: Path, arch: str, features: int) -> None:
    from torchvision import models

    torch.manual_seed(0)
    original = models.get_model(arch, weights=None, num_classes=11)
    torch.save({"state_dict": {f"module.{n}": v for n, v in original.state_dict().items()}}, tmp_path / "w.pth")
    victim = TorchvisionBackbone(arch, tmp_path / "w.pth", input_size=(64, 32)).eval()
    assert victim.embed(IMAGES).shape == (3, features)
    examine(victim, CPU)
    if arch == "resnet18":  # what its classifier makes of them is what the original says
        ready = preprocess(IMAGES, (64, 32))
        torch.testing.assert_close(original.fc(victim.embed(IMAGES)), original.eval()(ready), atol=1e-5, rtol=0)


def test_a_timm_model_gives_its_pooled_features(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    original = timm.create_model("resnet10t", pretrained=False, num_classes=11).eval()
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    victim = TimmBackbone("resnet10t", tmp_path / "w.safetensors", input_size=(64, 32)).eval()
    ready = preprocess(IMAGES, (64, 32), *(original.default_cfg[name] for name in ("mean", "std")))
    torch.testing.assert_close(original.fc(victim.embed(IMAGES)), original(ready), atol=1e-5, rtol=0)
    examine(victim, CPU)
    transformer = TimmBackbone(
        "vit_tiny_patch16_224", untrained=True, input_size=(64, 32), settings={"img_size": (64, 32)}
    )
    assert transformer.eval().embed(IMAGES).shape == (3, 192)
    assert transformer.mean == (0.5, 0.5, 0.5), "its own normalisation, not ImageNet's"
    for arch in ("resnet10", "hf-hub:timm/resnet10t.c3_in1k"):
        with pytest.raises(BenchError, match="timm has no model"):
            TimmBackbone(arch, untrained=True)


def test_a_missing_timm_or_onnxruntime_says_what_to_install(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BenchError, match="pip install timm"):
        TimmBackbone("resnet10t", untrained=True)
    (tmp_path / "m.onnx").touch()
    with pytest.raises(BenchError, match="pip install onnxruntime"):
        OnnxModel(tmp_path / "m.onnx")


def test_random_weights_must_be_asked_for_and_are_always_the_same(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(BenchError, match=r"resnet18 has no weights and nothing is downloaded: .*file=.*untrained=True"):
        TorchvisionBackbone("resnet18")
    with pytest.raises(BenchError, match="leave one out"):
        TorchvisionBackbone("resnet18", "w.pth", untrained=True)
    with pytest.raises(BenchError, match="did you mean 'resnet18'"):
        TorchvisionBackbone("resnet_18", untrained=True)
    one, other = (TorchvisionBackbone("shufflenet_v2_x0_5", untrained=True) for _ in range(2))
    assert weights_digest(one) == weights_digest(other)


def test_an_input_size_that_a_backbone_refuses_is_said() -> None:
    victim = TorchvisionBackbone("squeezenet1_1", untrained=True, input_size=(8, 8))
    with pytest.raises(VictimError, match="squeezenet1_1 does not run at input size 8×8"):
        victim.embed(IMAGES)


# FastReID


@pytest.mark.parametrize("kind", [Net, Baseline])
def test_a_network_of_255_sees_what_it_was_trained_on(tmp_path: Path, kind: type[Net]) -> None:
    original = kind()
    torch.save(
        {"model": {**original.state_dict(), "heads.weight": torch.rand(9, 6)}, "iteration": 3}, tmp_path / "w.pth"
    )
    victim = FastReidModel(kind(), tmp_path / "w.pth", input_size=SIZE).eval()
    expected = Net().eval()(preprocess(IMAGES, SIZE))  # the mean and std are ImageNet's, times 255
    torch.testing.assert_close(victim.embed(IMAGES), expected, atol=1e-5, rtol=0)
    examine(victim, CPU)
    assert victim.name == kind.__name__


def test_several_outputs_want_a_choice() -> None:
    with pytest.raises(VictimError, match=r"Pair returned several outputs \(0: 3×2, 1: 3×6\): select the embedding"):
        FastReidModel(Pair(), input_size=SIZE).eval().embed(IMAGES)
    chosen = FastReidModel(Pair(), input_size=SIZE, output=1).eval()
    same(chosen, FastReidModel(Net(), input_size=SIZE))


# exported


def scripted(model: nn.Module, file: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is old
        torch.jit.trace(model.eval(), torch.rand(2, 3, *SIZE)).save(str(file))
    return file


def exported(model: nn.Module, file: Path, batch: int | None = None) -> Path:
    dynamic = ({0: torch.export.Dim.DYNAMIC},) if batch is None else None
    program = torch.export.export(model.eval(), (torch.rand(batch or 2, 3, *SIZE),), dynamic_shapes=dynamic)
    torch.export.save(program, file)
    return file


def onnx(model: nn.Module, file: Path, batch: int | None = None) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    free = {"images": {0: "batch"}} if batch is None else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a newer exporter, which needs onnxscript
        torch.onnx.export(model.eval(), (torch.rand(batch or 2, 3, *SIZE),), str(file), dynamo=False,
                          input_names=["images"], dynamic_axes=free)  # fmt: skip
    return file


KINDS = {"torchscript": (partial(TorchScriptModel, trust_code=True), scripted, "ts"),
         "torch-export": (partial(ExportedModel, trust_code=True), exported, "pt2"),
         "onnx": (OnnxModel, onnx, "onnx")}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_model_is_the_original(tmp_path: Path, kind: str) -> None:
    adapter, export, suffix = KINDS[kind]
    file = export(Net(), tmp_path / f"net.{suffix}")
    victim = adapter(file, input_size=SIZE, distance="euclidean", defence="none").eval().requires_grad_(False)
    network = Net().eval()
    torch.testing.assert_close(victim.embed(IMAGES), network(preprocess(IMAGES, SIZE)), atol=1e-5, rtol=0)
    assert victim.embed(IMAGES[:1]).shape == (1, 6)
    assert (victim.name, victim.distance, victim.defence) == ("net", "euclidean", "none")
    examine(victim, CPU)
    assert victim.differentiable == (kind != "onnx")
    if victim.differentiable:
        gradients = []
        for model in (victim.embed, lambda images: network(preprocess(images, SIZE))):
            images = IMAGES.clone().requires_grad_(True)
            gradients += torch.autograd.grad(model(images)[:, 0].sum(), images)
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_range_that_an_exported_model_wants(tmp_path: Path, kind: str) -> None:
    adapter, export, suffix = KINDS[kind]
    file = export(Net(), tmp_path / f"net.{suffix}")
    network = Net().eval()
    for settings, images in (
        ({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}, 2 * IMAGES - 1),
        ({"mean": (0, 0, 0), "std": (1, 1, 1)}, IMAGES),
        ({"scale": 255}, 255 * IMAGES),
        ({"scale": 255, "mean": [255 * m for m in IMAGENET_MEAN], "std": [255 * s for s in IMAGENET_STD]},
         preprocess(IMAGES, SIZE)),
    ):  # fmt: skip
        embeddings = adapter(file, input_size=SIZE, **settings).eval().embed(IMAGES)
        torch.testing.assert_close(embeddings, network(images), atol=1e-3 if settings.get("scale") else 1e-5, rtol=1e-5)
    with pytest.raises(BenchError, match="scale must be 1 or 255"):
        adapter(file, scale=2)


@pytest.mark.parametrize("kind", ["torch-export", "onnx"])
def test_one_exported_for_a_fixed_batch_takes_any(tmp_path: Path, kind: str) -> None:
    adapter, export, suffix = KINDS[kind]
    victim = adapter(export(Net(), tmp_path / f"net.{suffix}", batch=2)).eval()
    assert victim.input_size == SIZE, "as the file says"
    expected = Net().eval()(preprocess(IMAGES, SIZE))
    torch.testing.assert_close(victim.embed(IMAGES), expected, atol=1e-5, rtol=0)
    with pytest.raises(BenchError, match="was exported for images of 32×16, not 256×128"):
        adapter(tmp_path / f"net.{suffix}", input_size=(256, 128))


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_of_several_is_chosen(tmp_path: Path, kind: str) -> None:
    adapter, export, suffix = KINDS[kind]
    file = export(Pair(), tmp_path / f"pair.{suffix}")
    with pytest.raises(VictimError, match=r"several outputs \(.*3×2.*3×6\)"):
        adapter(file, input_size=SIZE).eval().embed(IMAGES)
    embeddings = adapter(file, input_size=SIZE, output=1).eval().embed(IMAGES)
    torch.testing.assert_close(embeddings, Net().eval()(preprocess(IMAGES, SIZE)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [None, b"nothing like it" * 50])
def test_an_exported_file_that_is_missing_or_damaged(tmp_path: Path, kind: str, content: bytes | None) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    adapter, _, suffix = KINDS[kind]
    file = tmp_path / f"net.{suffix}"
    if content:
        file.write_bytes(content)
    with pytest.raises(
        BenchError, match="is not a readable .*may be corrupt" if content else "model file .* does not exist"
    ) as caught:
        adapter(file)
    assert "\n" not in str(caught.value)


def test_the_digest_of_an_exported_model_is_that_of_its_file(tmp_path: Path) -> None:
    """Two graphs with the same weights are two victims."""
    one = TorchScriptModel(scripted(Net(), tmp_path / "one.ts"), trust_code=True)
    other = TorchScriptModel(scripted(Pair(), tmp_path / "other.ts"), trust_code=True)
    assert weights_digest(one) != weights_digest(other)
    assert weights_digest(one) == weights_digest(TorchScriptModel(tmp_path / "one.ts", trust_code=True))


@pytest.mark.e2e
def test_onnx_runs_in_a_forked_process_too(tmp_path: Path) -> None:
    """The bench forks its workers after the victims are made; threads do not come along."""
    victim = OnnxModel(onnx(Net(), tmp_path / "net.onnx"), input_size=SIZE)
    expected = victim.embed(IMAGES)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=lambda: there.send(victim.embed(IMAGES).numpy()))
    process.start()
    assert here.poll(30), "it hangs"
    np.testing.assert_array_equal(here.recv(), expected.numpy())
    process.join(30)


@pytest.mark.e2e
def test_a_ready_victim_runs_in_forked_processes_of_several_threads(tmp_path: Path, trained) -> None:
    """Where there are more cores than workers: torch's threads of the parent do not come along, and are waited for."""
    torch.save(trained.model.state_dict(), tmp_path / "w.pth")
    script = f"""
import multiprocessing, torch
from reid_attack_bench.contracts import weights_digest
from reid_attack_bench.execute.device import stop_threads
from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint
torch.set_num_threads(2)
victim = TorchreidCheckpoint({ARCH!r}, "w.pth", input_size=(64, 32)).eval()
weights_digest(victim)
victim.embed(torch.rand(8, 3, 64, 32))
assert stop_threads()
def work():
    torch.set_num_threads(2)
    victim.embed(torch.rand(8, 3, 64, 32))
process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
process.start()
process.join(30)
assert process.exitcode == 0, "it hangs"
"""
    process = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=120, check=False)
    assert process.returncode == 0


# as plug-ins


def test_every_adapter_is_registered_with_a_line_about_it() -> None:
    names = {"torchreid-checkpoint", "torchvision", "timm", "torchscript", "torch-export", "onnx", "openvino"}
    assert set(registry.available("victim")) >= names
    assert all(registry.find("victim", name).factory.__doc__ for name in names)
    with pytest.raises(BenchError, match="torchreid-checkpoint needs arch and file: give them as options"):
        registry.find("victim", "torchreid-checkpoint").build({})
    with pytest.raises(BenchError, match="no option 'input': did you mean 'input_size'"):
        registry.find("victim", "torchscript").build({"file": "x", "input": 3})


def test_one_line_is_a_whole_file(tmp_path: Path, tiny, trained) -> None:
    torch.save(trained.model.state_dict(), tmp_path / "w.pth")
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from reid_attack_bench.victims.checkpoint import TorchreidCheckpoint\n"
        f"MyDefence = TorchreidCheckpoint({ARCH!r}, {str(tmp_path / 'w.pth')!r}, input_size=(32, 16), defence='JPEG')\n"
    )
    plugin = registry.find("victim", f"{mine}:MyDefence")
    assert plugin.short_name == "MyDefence"
    assert plugin.build({}) is plugin.build({})
    assert plugin.build({}).defence == "JPEG"
    with pytest.raises(
        BenchError,
        match="is an instance of TorchreidCheckpoint and takes no options, not distance: set them in its file",
    ):
        plugin.build({"distance": "cosine"})
    with pytest.raises(BenchError, match="did you mean 'MyDefence'"):
        registry.find("victim", f"{mine}:MyDefense")
    tiny["victims"]["mine"] = {"use": f"{mine}:MyDefence"}
    (step,) = [s for s in make_plan(parse.parse(tiny)).steps.values() if s.label == "victim mine"]
    assert step.config["weights"] == weights_digest(plugin.build({}))


@pytest.mark.e2e
def test_a_registered_adapter_takes_its_options_from_the_command_line(tmp_path: Path, tiny, write_suite) -> None:
    file = scripted(Net(), tmp_path / "net.ts")
    options = [f"--option={text}" for text in (f"file={file}", "input_size=[32, 16]", "trust_code=true")]
    result = CliRunner().invoke(cli.cli, ["check-victim", "torchscript", *options, "--suite", write_suite(tiny)])
    assert result.exception is None, result.stdout
    assert "N×6, float32, finite" in result.stdout
