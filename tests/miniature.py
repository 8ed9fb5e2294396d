"""Miniatures: rendered people in the layouts of Market-1501 and MSMT17, and checkpoints as torchreid writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from reid_attack_bench.contracts import preprocess, to_float
from reid_attack_bench.data.readers.export import write_market1501
from reid_attack_bench.data.split import Split
from reid_attack_bench.data.synthetic import render_domain
from reid_attack_bench.torchreid_import import torchreid_module
from reid_attack_bench.zoo.catalogue import find

SIZE = (256, 128)


FEW = {"train_identities": 6, "test_identities": 4, "images_per_camera": 1, "queries_per_identity": 1}


def people(domain: str, size: tuple[int, int] = SIZE, **counts: int) -> dict[str, Split]:
    """A few rendered people, at a size at which no library has to resize them."""
    return render_domain(domain, seed=0, size=size, **{**FEW, **counts})


def market1501(root: Path) -> Path:
    """Market-1501 in small below the data root; returns the folder that its archive unpacks to."""
    return write_market1501(people("plaza"), root)


def msmt17(root: Path) -> Path:
    """MSMT17 in small below the data root: folders per identity and four lists, of which train and val overlap none."""
    base = root / "msmt17" / "MSMT17_V1"
    splits = people("station")
    lists: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
    for part, split in splits.items():
        folder = base / ("train" if part == "train" else "test")
        for index, (pixels, identity, camera) in enumerate(
            zip(split.images, split.identities, split.cameras, strict=True)
        ):
            below = f"{identity:04d}/{identity:04d}_{index:03d}_{camera + 1:02d}_0303morning_{index:04d}_0.jpg"
            (folder / below).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(pixels)).save(folder / below, quality=100, subsampling=0)
            lists["val" if part == "train" and index % 6 == 5 else part].append(f"{below} {identity}")
    for name, lines in lists.items():
        (base / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
    return base


def network(architecture: str, classes: int, seed: int = 0) -> nn.Module:
    """A network of torchreid that was never trained."""
    torch.manual_seed(seed)
    return torchreid_module("models").build_model(architecture, classes, loss="softmax", pretrained=False).eval()


def trained(architecture: str, train: Split, steps: int = 40) -> nn.Module:
    """A network of torchreid after a few steps of cross-entropy: far from chance, and far from good."""
    labels = torch.from_numpy(np.unique(train.identities, return_inverse=True)[1])
    images = to_float(train.images)
    model = network(architecture, int(labels.max()) + 1).train()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(steps):
        rows = torch.randperm(len(images))[:16]
        loss = functional.cross_entropy(model(preprocess(images[rows], images.shape[2:])), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def save_checkpoint(model: nn.Module, path: Path) -> Path:
    """`model` as torchreid's save_checkpoint writes what several GPUs trained."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 60, "rank1": 0.5, "optimizer": {}, "scheduler": {}}, path)
    return path


def zoo_weights(folder: Path, names: Iterable[str], classes: int = 6) -> None:
    """Untrained checkpoints under the file names of zoo models."""
    for name in names:
        save_checkpoint(network(find(name).architecture, classes), folder / f"{name}.pth")


def measured_by_torchreid(model: nn.Module, root: Path, size: tuple[int, int]) -> tuple[float, float]:
    """Rank-1 and mAP in % by torchreid's reader, transforms, distance and evaluation, with one decimal."""
    reader = torchreid_module("data.datasets.image.market1501").Market1501(root=str(root), verbose=False)
    transform = torchreid_module("data.transforms").build_transforms(*size, transforms=[])[1]

    def embedded(items: list) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        with torch.no_grad():
            parts = [model(transform(Image.open(path).convert("RGB"))[None]) for path, *_ in items]
        identities, cameras = (np.array([item[i] for item in items]) for i in (1, 2))
        return torch.cat(parts), identities, cameras

    (query, q_ids, q_cams), (gallery, g_ids, g_cams) = embedded(reader.query), embedded(reader.gallery)
    distances = torchreid_module("metrics").compute_distance_matrix(query, gallery, "euclidean").numpy()
    cmc, mean = torchreid_module("metrics").evaluate_rank(
        distances, q_ids, g_ids, q_cams, g_cams, max_rank=10, use_cython=False
    )
    return round(100 * float(cmc[0]), 1), round(100 * float(mean), 1)
