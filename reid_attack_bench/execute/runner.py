"""Run one step: obtain its inputs, fill its folder, report events."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.execute.surroundings import undisturbed, where
from reid_attack_bench.steps import kinds
from reid_attack_bench.steps.step import Step
from reid_attack_bench.steps.workspace import Workspace
from reid_attack_bench.store import CorruptArtefact, Held, Store


class Runner:
    """Runs steps one after another and caches data that several of them read."""

    def __init__(self, steps: Mapping[str, Step], store: Store, device: torch.device, listener: Listener) -> None:
        self.steps, self.store, self.listener = steps, store, listener
        self.workspace = Workspace(self.obtain, steps, device, store.unfinished, listener.note)
        self._checked: set[str] = set()

    def run(self, step: Step) -> bool:
        """Run `step`; a failure is reported to the listener.

        Returns:
            Whether it is over; False if another run is doing it, or making one of its inputs.

        Raises:
            BenchError: the disk is full, so no other step can succeed either.
        """
        try:
            self._make(step)
        except Held:
            return False
        except BenchError as error:
            self.listener.fail(step, str(error))
        except torch.cuda.OutOfMemoryError:
            self.listener.fail(
                step, "out of GPU memory: lower the training batch (batch_identities, batch), or free some"
            )
        except Exception as error:  # a plug-in may raise anything
            if _disk_is_full(error):
                free = shutil.disk_usage(self.store.root).free / 2**20
                raise BenchError(
                    f"the disk of {self.store.root} is full ({free:.0f} MiB free) at step '{step.label}'; "
                    "finished steps are kept: free some space and run the same command again"
                ) from error
            self.listener.fail(step, f"{where(error)}{type(error).__name__}: {error}")
        return True

    def obtain(self, key: str) -> Path:
        """The verified folder of a step's result; the step is run again if it is missing or corrupt."""
        step = self.steps[key]
        if key in self._checked:
            return self.store.folder(step.kind, key)
        if self.store.occupied(step.kind, key):
            try:
                folder = self.store.open(step.kind, key)
                self._checked.add(key)
                return folder
            except CorruptArtefact as error:
                self.listener.rebuild(step, f"{step.label}: {error.found}")
                self.store.discard(step.kind, key)
        self._make(step)
        return self.store.open(step.kind, key)

    def _make(self, step: Step) -> None:
        """Run `step`, unless another run has stored its result meanwhile.

        Raises:
            Held: another run is doing it.
        """
        with self.store.claims.claim(step.key):
            if self.store.has(step.kind, step.key):
                self.listener.found(step)
            else:
                self._run(step)

    def _run(self, step: Step) -> None:
        for key in step.inputs.values():
            self.obtain(key)
        self.listener.start(step)
        begun = time.monotonic()
        manifest = {**step.record, "device": self.workspace.device.type}
        with self.store.write(step.kind, step.key, manifest) as folder, undisturbed() as streams:
            warnings.simplefilter("ignore")  # torch warns about every operation without a deterministic kernel
            progress = streams.outside(functools.partial(self.listener.progress, step))
            self.workspace.note = streams.outside(self.listener.note)
            manifest["facts"] = kinds.run(step, self.workspace, folder, progress)
            seconds = time.monotonic() - begun
            manifest["seconds"] = round(seconds, 3)
        self._checked.add(step.key)
        self.listener.finish(step, seconds)


def _disk_is_full(error: BaseException) -> bool:
    # safetensors raises its own error class, which contains the system's message
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return full or os.strerror(errno.ENOSPC) in str(error)
