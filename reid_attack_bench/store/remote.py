"""The store as objects, such as s3://BUCKET/PREFIX, with copies in a folder (extra `remote`)."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import expanded
from reid_attack_bench.store.claims import Claims
from reid_attack_bench.store.local import MANIFEST, CorruptArtefact, Store, read_manifest

CACHE = "REID_ATTACK_BENCH_STORE_CACHE"
"""Variable of the environment: folder of the copies of remote stores."""

_SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""Schemes of addresses, and the packages that fsspec needs for them."""

_FRESH = 5.0
"""Seconds for which what was listed answers that an object is missing."""


def open_store(place: str | Path) -> Store:
    """The store at a folder, or at an address such as s3://BUCKET/PREFIX.

    Raises:
        BenchError: a package that the address needs is not installed.
    """
    # a Path has lost one of the slashes
    match = re.fullmatch(r"([a-z0-9]+):/{1,2}([^/].*?)/*", str(place))
    if match is None or match[1] not in _SCHEMES:
        return Store(Path(place))
    url = f"{match[1]}://{match[2]}"
    for package in ("fsspec", _SCHEMES[match[1]]):
        if importlib.util.find_spec(package) is None:
            more = "'reid-attack-bench[remote]'" if package in ("fsspec", "s3fs") else package
            raise BenchError(f"--store {url} requires {package}, which is not installed: pip install {more}")
    return RemoteStore(_cache() / hashlib.sha256(url.encode()).hexdigest()[:16], url=url)


@dataclass(frozen=True)
class RemoteStore(Store):
    """A store of objects. `root` is a folder with copies of what this machine made or read.

    PREFIX/KIND/KEY/manifest.json is uploaded last: what has none does not count. Beside it are the files, by digest, so
    that two uploads of one result cannot be mixed. A copy is checked like any artefact.
    """

    url: str = ""
    _listed: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def address(self) -> str:
        return self.url

    def is_there(self) -> bool:
        return True

    @property
    def claims(self) -> Claims:
        return ObjectClaims(self.url)

    def prepare(self) -> None:
        self._listed.clear()
        super().prepare()

    def occupied(self, kind: str, key: str) -> bool:
        return bool(self._objects(kind, key))

    def has(self, kind: str, key: str) -> bool:
        return MANIFEST in self._objects(kind, key)

    def manifest(self, kind: str, key: str) -> dict[str, Any]:
        if self._copies.has(kind, key):
            return self._copies.manifest(kind, key)
        if not self._manifests.has(kind, key):
            with self._missing(kind, key):
                self._keep(kind, key, _call(self.url, "cat_file", self._path(kind, key, MANIFEST)))
        return self._manifests.manifest(kind, key)

    def check(self, kind: str, key: str) -> None:
        """Check the manifest, and that all files are there; their content is checked when they are downloaded."""
        if missing := self._lacks(kind, key):
            self._forget(kind, key)  # another machine may have made it again since its manifest was read here
            missing = self._lacks(kind, key)
        for name in missing:
            raise CorruptArtefact(self.folder(kind, key), f"{name} is missing in {self.url}")

    def _lacks(self, kind: str, key: str) -> list[str]:
        """Files of a result that are not there."""
        there = self._objects(kind, key)
        return [
            name for name, digest in self.manifest(kind, key)["files"].items() if _object(name, digest) not in there
        ]

    def look_up(self, results: Iterable[tuple[str, str]]) -> None:
        wanted = {
            _path(self.url, kind, key, MANIFEST): (kind, key)
            for kind, key in results
            if not self._copies.has(kind, key) and not self._manifests.has(kind, key)
        }
        if wanted:
            found = _call(self.url, "cat", list(wanted), on_error="omit")
            for path, content in found.items():
                self._keep(*wanted[path], content)

    def open(self, kind: str, key: str) -> Path:
        """As `Store.open`, after a download if there is no sound copy here."""
        for last in (False, True):
            with contextlib.suppress(CorruptArtefact):
                return self._copies.open(kind, key)
            self._copies.discard(kind, key)
            try:
                self._download(kind, key)
                return self._copies.open(kind, key)
            except CorruptArtefact:
                if last:
                    self.discard(kind, key)  # so that the next run makes it again
                    raise
                self._forget(kind, key)  # another run may have replaced it meanwhile
        raise AssertionError

    def discard(self, kind: str, key: str) -> None:
        self._copies.discard(kind, key)
        self._forget(kind, key)
        for name in sorted(self._listed.pop((kind, key)), key=lambda name: name != MANIFEST):  # the manifest first
            with contextlib.suppress(FileNotFoundError):
                _call(self.url, "rm_file", self._path(kind, key, name))

    def _place(self, pending: Path, kind: str, key: str) -> None:
        text = (pending / MANIFEST).read_bytes()
        files = read_manifest(pending, kind, key)["files"]
        paths = [str(pending / name) for name in files]
        objects = [self._path(kind, key, _object(name, digest)) for name, digest in files.items()]
        if paths:
            _call(self.url, "put", paths, objects)
        _create(self.url, self._path(kind, key, MANIFEST), text)
        self._keep(kind, key, text)
        self._listed.setdefault((kind, key), set()).update([MANIFEST, *(path.rpartition("/")[2] for path in objects)])
        self._copies._place(pending, kind, key)

    def _download(self, kind: str, key: str) -> None:
        """A copy of one result, in its place."""
        files = self.manifest(kind, key)["files"]
        with self._new_folder(key) as pending, self._missing(kind, key):
            objects = [self._path(kind, key, _object(name, digest)) for name, digest in files.items()]
            if objects:
                _call(self.url, "get", objects, [str(pending / name) for name in files])
            (pending / MANIFEST).write_bytes((self._manifests.folder(kind, key) / MANIFEST).read_bytes())
            self._copies._place(pending, kind, key)

    @property
    def _copies(self) -> Store:
        return Store(self.root, self._sound)

    @property
    def _manifests(self) -> Store:
        """Manifests whose files may not be here."""
        return Store(self.root / "manifests")

    def _keep(self, kind: str, key: str, manifest: bytes) -> None:
        with self._manifests._new_folder(key) as pending:
            (pending / MANIFEST).write_bytes(manifest)
            self._manifests.discard(kind, key)
            self._manifests._place(pending, kind, key)

    def _forget(self, kind: str, key: str) -> None:
        """Forget what is known of a result, and look again what is there."""
        self._manifests.discard(kind, key)
        self._listed[kind, key] = self._named(kind, key)

    @contextlib.contextmanager
    def _missing(self, kind: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise CorruptArtefact(self.folder(kind, key), f"an object of it is missing in {self.url}") from error

    def _path(self, kind: str, key: str, name: str) -> str:
        return f"{_path(self.url, kind, key)}/{name}"

    def _find(self, *names: str) -> list[str]:
        """Paths of all objects below a folder."""
        with contextlib.suppress(FileNotFoundError):
            return list(_call(self.url, "find", _path(self.url, *names)))
        return []

    def _objects(self, kind: str, key: str) -> set[str]:
        """Names of the objects of one result."""
        if "at" not in self._listed:
            self._listed["at"] = time.monotonic()
            for path in self._find():
                *_, of, which, name = ("", "", *path.split("/"))
                self._listed.setdefault((of, which), set()).add(name)
        found: set[str] = self._listed.get((kind, key), set())
        if not found and time.monotonic() - self._listed["at"] > _FRESH:
            found = self._named(kind, key)
            if found:
                self._listed[kind, key] = found
        return found

    def _named(self, kind: str, key: str) -> set[str]:
        return {path.rpartition("/")[2] for path in self._find(kind, key)}


@dataclass(frozen=True)
class ObjectClaims(Claims):
    """Claims as objects. S3 and Google Cloud Storage create an object for one process only; with others, two that start
    a step at the same moment may both do it."""

    url: str

    def _path(self, key: str) -> str:
        return _path(self.url, "claims", key)

    def create(self, key: str, content: str) -> bool:
        if not _create(self.url, self._path(key), content.encode()):
            return False
        found = self.read(key)  # the last of several, where all were let through
        return found is not None and found[0] == content

    def read(self, key: str) -> tuple[str, float] | None:
        with contextlib.suppress(FileNotFoundError):
            content = _call(self.url, "cat_file", self._path(key)).decode(errors="replace")
            return content, self._touched(self._path(key))
        return None

    def _touched(self, path: str) -> float:
        return float(_call(self.url, "modified", path).timestamp())

    def touch(self, key: str, content: str) -> None:
        found = self.read(key)
        if found is not None and found[0] == content:
            _call(self.url, "pipe_file", self._path(key), content.encode())

    def remove(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _call(self.url, "rm_file", self._path(key))

    drop = remove

    def keys(self) -> list[str]:
        paths = _call(self.url, "find", _path(self.url, "claims"))
        return [name for path in paths if not (name := path.rpartition("/")[2]).startswith(".")]

    def now(self) -> float:
        probe = self._path(f".{uuid.uuid4().hex}.tmp")
        try:
            _call(self.url, "pipe_file", probe, b"")
        except FileNotFoundError as error:
            raise BenchError(f"cannot use the store {self.url}: {_line(error)}") from error
        try:
            return self._touched(probe)
        finally:
            _call(self.url, "rm_file", probe)


def _object(name: str, digest: str) -> str:
    """Name of the object of a file."""
    return f"{digest[:16]}-{name}"


def _path(url: str, *names: str) -> str:
    return "/".join((url.partition("://")[2], *names))


def _create(url: str, path: str, content: bytes) -> bool:
    """Create an object; False if there is one."""
    try:
        _call(url, "pipe_file", path, content, mode="create")
    except FileExistsError:
        return False
    except NotImplementedError:
        if _call(url, "exists", path):
            return False
        _call(url, "pipe_file", path, content)
    return True


def _call(url: str, name: str, *values: Any, **settings: Any) -> Any:
    """Result of a method of the file system of `url`.

    Raises:
        FileNotFoundError, FileExistsError, NotImplementedError: as the method.
        BenchError: anything else, such as wrong credentials.
    """
    fsspec = importlib.import_module("fsspec")
    try:
        system, _ = fsspec.core.url_to_fs(url, use_listings_cache=False)
        return getattr(system, name)(*values, **settings)
    except (FileNotFoundError, FileExistsError, NotImplementedError):
        raise
    except Exception as error:  # each file system has errors of its own
        if "PreconditionFailed" in repr(error) or "ConditionalRequestConflict" in repr(error):
            raise FileExistsError(_line(error)) from error
        raise BenchError(f"cannot use the store {url}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _cache() -> Path:
    given = os.environ.get(CACHE)
    if given:
        return expanded(given)
    home = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (home if home.is_absolute() else Path(tempfile.gettempdir())) / "reid-attack-bench" / "stores"
