"""Run one step: obtain its inputs, fill its folder, report what happened."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import events
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.steps import kinds as steps
from reid_attack_bench.steps import workspace
from reid_attack_bench.steps.step import Step
from reid_attack_bench.store import CorruptArtefact, Store


class Runner:
    """Does one step after the other, and keeps what several of them read."""

    def __init__(self, plan: Plan, store: Store, device: torch.device, teller: events.Teller) -> None:
        self.plan, self.store, self.teller = plan, store, teller
        self.checked: set[str] = set()
        self.under_way: Step | None = None
        self.workspace = workspace.Workspace(self.obtain, plan.steps, device, store.unfinished, self.note)

    def run(self, step: Step) -> None:
        """Do `step` and tell how it went.

        Raises:
            BenchError: the disk is full, so nothing else can be done either.
        """
        try:
            self.do(step)
        except BenchError as error:
            self.teller.fail(step, str(error))
        except torch.cuda.OutOfMemoryError:
            self.teller.fail(
                step, "out of GPU memory: lower the batch of what it trains (batch_identities, batch), or free some"
            )
        except Exception as error:  # a plug-in may raise anything
            if _disk_is_full(error):
                free = shutil.disk_usage(self.store.root).free / 2**20
                raise BenchError(
                    f"the disk of {self.store.root} is full ({free:.0f} MiB free) at step '{step.label}'; what is "
                    "finished is kept: free some space and run the same command again"
                ) from error
            self.teller.fail(step, f"{_where(error)}{type(error).__name__}: {error}")

    def note(self, text: str) -> None:
        assert self.under_way is not None
        self.teller.note(self.under_way, text)

    def do(self, step: Step) -> None:
        for key in step.inputs.values():
            self.obtain(key)
        self.under_way = step
        self.teller.start(step)
        begun = time.monotonic()
        manifest: dict[str, Any] = {
            "kind": step.kind,
            "key": step.key,
            "label": step.label,
            "config": step.config,
            "implementation": step.implementation,
            "inputs": dict(step.inputs),
        }
        with self.store.write(step.kind, step.key, manifest) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch names operations without a deterministic kernel, again and again
            progress = functools.partial(self.teller.progress, step)
            manifest["facts"] = steps.run(step, self.workspace, folder, progress)
            seconds = time.monotonic() - begun
            manifest["seconds"] = round(seconds, 3)
        self.checked.add(step.key)
        self.teller.finish(step, seconds)

    def obtain(self, key: str) -> Path:
        """The checked folder of a step's result; made again where it is missing or corrupt."""
        step = self.plan.steps[key]
        if key in self.checked:
            return self.store.folder(step.kind, key)
        if self.store.has(step.kind, key):
            try:
                folder = self.store.open(step.kind, key)
                self.checked.add(key)
                return folder
            except CorruptArtefact as error:
                self.teller.rebuild(step, str(error))
                self.store.discard(step.kind, key)
        self.do(step)
        return self.store.folder(step.kind, key)


def _disk_is_full(error: BaseException) -> bool:
    # safetensors raises an error of its own, with the system's words in it
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return full or os.strerror(errno.ENOSPC) in str(error)


def _where(error: BaseException) -> str:
    """FILE:LINE of the innermost frame: where to look first."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}: " if frames else ""
