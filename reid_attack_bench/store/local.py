"""The store as a folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import TICK, file_digest, fingerprint, is_settled, replace_file
from reid_attack_bench.store.claims import Claims, FileClaims, is_gone, owner

DEFAULT_STORE = Path("runs/store")
"""Store of every command and function that is not given another."""

MANIFEST = "manifest.json"

_OF_SYSTEMS = (".nfs", ".DS_Store")
"""What file systems add to folders: files that were removed while open, and views of folders."""

LARGE = 2**18
"""Files of this many bytes or more are not read again after one check while their fingerprint is unchanged."""


class CorruptArtefact(BenchError):  # noqa: N818  describes the folder
    """A stored artefact differs from what was stored.

    Attributes:
        folder: of the artefact.
        found: the artefact and what is wrong, for a message that says what is done about it.
    """

    def __init__(self, folder: Path, why: str) -> None:
        self.folder, self.found = folder, f"stored artefact {folder} ({why}) is corrupt"
        super().__init__(f"{self.found}: run the suite again, which makes it again")


@dataclass(frozen=True)
class Store:
    """A folder of artefacts: ROOT/KIND/KEY/ holds the files of one step and a manifest with their digests.

    The manifest says of which step it is, and has a seal: the digest of all else in it. One of an earlier version has
    none; what it says besides digests is taken as it is.
    """

    root: Path
    _sound: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def address(self) -> str:
        """Text from which `open_store` opens it, in any folder."""
        return os.path.abspath(self.root)

    def is_there(self) -> bool:
        """Whether this machine sees the store."""
        return self.root.is_dir()

    def folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def occupied(self, kind: str, key: str) -> bool:
        """Whether anything is in the place of a result, sound or not."""
        return os.path.lexists(self.folder(kind, key))

    def has(self, kind: str, key: str) -> bool:
        """Whether a result is stored, by its manifest; `open` checks its files too."""
        try:
            about = _fingerprint(self.folder(kind, key))
            if self._sound.get((kind, key)) != about:
                self.manifest(kind, key)
        except CorruptArtefact:
            return False
        return True

    def manifest(self, kind: str, key: str) -> dict[str, Any]:
        """The manifest of one result.

        Raises:
            CorruptArtefact: it cannot be read, was changed, or is of another result.
        """
        folder = self.folder(kind, key)
        about = _fingerprint(folder)
        if not is_settled(list(about)):  # a change may leave the fingerprint the same
            return read_manifest(folder, kind, key)
        found = dict(_remembered_manifest(folder, kind, key, about))
        self._sound[kind, key] = about
        return found

    def open(self, kind: str, key: str) -> Path:
        """The folder of one result, after checking every file against its digest.

        A LARGE file that once matched is not read again while its fingerprint is unchanged.

        Raises:
            CorruptArtefact: a file is missing, changed, added, or replaced by a link or a folder.
        """
        folder, files = self.folder(kind, key), self.manifest(kind, key)["files"]
        found = {entry.name: entry for entry in os.scandir(folder) if not entry.name.startswith(_OF_SYSTEMS)}
        for name in sorted({*files, MANIFEST} ^ set(found)):
            raise CorruptArtefact(folder, f"{name} is missing" if name in files else f"{name} was added")
        fresh: dict[str, list[Any]] = {}
        known: dict[str, list[Any]] | None = None
        for name, expected in files.items():
            path = folder / name
            if not found[name].is_file(follow_symlinks=False):
                raise CorruptArtefact(folder, f"{name} is a link or a folder")
            about = fingerprint(path)
            if about[1] >= LARGE:
                known = self._checked(key) if known is None else known
                if known.get(name) == [expected, *about]:
                    continue
                if is_settled(about):  # taken before the file is read: a change meanwhile gives another one
                    fresh[name] = [expected, *about]
            if file_digest(path) != expected:
                raise CorruptArtefact(folder, f"{name} does not match its digest")
        if fresh:
            self._remember(key, {**(known or {}), **fresh})
        return folder

    def check(self, kind: str, key: str) -> None:
        """Check one result as far as that takes no more than reading it.

        Raises:
            CorruptArtefact: as `open`.
        """
        self.open(kind, key)

    def look_up(self, results: Iterable[tuple[str, str]]) -> None:
        """Prepare for `check` of many results, given as (kind, key)."""

    @property
    def checked(self) -> Path:
        """Folder of the fingerprints of files that matched their digests."""
        return self.root / "checked"

    def _checked(self, key: str) -> dict[str, list[Any]]:
        """Files that matched: name → digest, followed by the fingerprint."""
        try:
            return dict(json.loads((self.checked / key).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def _remember(self, key: str, checked: Mapping[str, list[Any]]) -> None:
        # files of a read-only store are read every time
        with contextlib.suppress(OSError):
            replace_file(self.checked / key, json.dumps(checked).encode())

    def unfinished(self, key: str) -> Path:
        """File for checkpoints of the step with this key. It survives a kill; no other step reads it."""
        return self.root / "unfinished" / f"{key}.safetensors"

    def discard(self, kind: str, key: str) -> None:
        """Remove a result, or whatever is in its place."""
        _remove(self.checked / key)
        _remove(self.folder(kind, key))

    @contextmanager
    def write(self, kind: str, key: str, manifest: Mapping[str, Any]) -> Iterator[Path]:
        """A new folder to fill; on exit the manifest is added and the folder is renamed into place.

        `manifest` is read on exit, so the caller may add to it until then.
        """
        with self._new_folder(key) as pending:
            yield pending
            files, checked = _digests(pending)
            whole = {"facts": {}, **manifest, "kind": kind, "key": key, "files": files, "seal": ""}
            text = json.dumps(whole, indent=1, sort_keys=True) + "\n"
            (pending / MANIFEST).write_text(text.replace(_UNSEALED, _sealed(_seal(text))), encoding="utf-8")
            if checked:
                self._remember(key, checked)
            self._place(pending, kind, key)

    @contextmanager
    def _new_folder(self, key: str) -> Iterator[Path]:
        pending = _made(self.root / "pending") / f"{key}~{owner()}~{uuid.uuid4().hex[:8]}"
        pending.mkdir()
        try:
            yield pending
        finally:
            shutil.rmtree(pending, ignore_errors=True)

    def _place(self, pending: Path, kind: str, key: str) -> None:
        """Rename a filled folder to its place, unless the result is there: another worker was first."""
        final = self.folder(kind, key)
        _made(final.parent)
        try:
            pending.rename(final)
        except OSError:
            if not self.occupied(kind, key):
                raise
            if not self.has(kind, key):
                _remove(final)
                pending.rename(final)

    @property
    def claims(self) -> Claims:
        """Which steps are being done, and by whom."""
        return FileClaims(self.root / "claims")

    def prepare(self) -> None:
        """Make the folder ready for a run: what killed runs left half written is removed, that of living ones is not.

        Raises:
            BenchError: it cannot be written to.
        """
        try:
            for name in ("claims", "pending", "unfinished", "checked"):
                _made(self.root / name)
            self.claims.now()
        except OSError as error:
            raise BenchError(
                f"cannot write to the store {self.root}: {error.strerror}; choose another with --store"
            ) from error
        self.claims.sweep()
        for pending in (self.root / "pending").iterdir():
            key, _, rest = pending.name.partition("~")
            name = rest.partition("~")[0]
            gone = is_gone(name) if name else True
            if gone is None:  # a process elsewhere: it keeps its claim while it works
                gone = self.claims.holder(key) != name
            if gone:
                _remove(pending)
        for depth in ("", "*/"):
            for cut_short in self.root.glob(f"{depth}.*.tmp"):
                if not self.claims.holder(cut_short.name[1:].partition(".")[0]):
                    _remove(cut_short)


def _fingerprint(folder: Path) -> tuple[int, ...]:
    """That of the manifest in `folder`.

    Raises:
        CorruptArtefact: there is none, or a link or a file in place of it or of the folder.
    """
    try:
        whole = stat.S_ISDIR(folder.lstat().st_mode) and stat.S_ISREG((folder / MANIFEST).lstat().st_mode)
        about = tuple(fingerprint(folder / MANIFEST))
    except OSError as error:
        raise CorruptArtefact(folder, f"{MANIFEST}: {error.strerror}") from error
    if not whole:
        raise CorruptArtefact(folder, "a link or a file is in its place")
    return about


@functools.lru_cache(maxsize=64)  # of one result, the manifest is read several times in a row
def _remembered_manifest(folder: Path, kind: str, key: str, about: tuple[int, ...]) -> dict[str, Any]:
    """`read_manifest` of a file with the fingerprint `about`."""
    return read_manifest(folder, kind, key)


def read_manifest(folder: Path, kind: str, key: str) -> dict[str, Any]:
    """The manifest in `folder`, checked, without its seal.

    Raises:
        CorruptArtefact: it cannot be read, was changed, or is of another result.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptArtefact(folder, f"{MANIFEST}: {error}") from error
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(name), dict) for name in ("files", "facts")):
        raise CorruptArtefact(folder, f"{MANIFEST} is not one")
    seal = manifest.pop("seal", None)
    if seal is not None and seal != _seal(text.replace(_sealed(seal), _UNSEALED)):
        raise CorruptArtefact(folder, f"{MANIFEST} was changed")
    if (manifest.get("kind"), manifest.get("key")) != (kind, key):
        raise CorruptArtefact(folder, f"it is of {manifest.get('kind')} {manifest.get('key')}")
    return manifest


def _sealed(seal: str) -> str:
    """The line of a manifest with its seal."""
    return f'\n "seal": "{seal}"'


_UNSEALED = _sealed("")


def _seal(text: str) -> str:
    """Digest of a manifest's text without its seal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _digests(folder: Path) -> tuple[dict[str, str], dict[str, list[Any]]]:
    """Digests of the files in a finished folder; for LARGE files also [digest, *fingerprint].

    Only LARGE files are forced to the disk: the others are read whenever they are opened, so what a power failure takes
    of them is noticed.
    """
    files: dict[str, str] = {}
    checked: dict[str, list[Any]] = {}
    for path in sorted(folder.iterdir()):
        large = path.stat().st_size >= LARGE
        if large:
            _sync(path)  # writes what is left in a memory map
        about = fingerprint(path)
        files[path.name] = file_digest(path)
        if large:
            checked[path.name] = [files[path.name], *about]
    while not all(is_settled(about[1:]) for about in checked.values()):  # else a change from now on may not be seen
        time.sleep(TICK / 4e9)
    return files, checked


def _made(folder: Path) -> Path:
    """`folder`, made if need be, also where a file or a broken link is in its place."""
    if os.path.lexists(folder) and not folder.is_dir():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
