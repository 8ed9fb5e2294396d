"""The archive of a submission: what a stranger may put into it, and how large it may be."""

from __future__ import annotations

import stat
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from reid_attack_bench.errors import BenchError
from reid_attack_bench.jobs.submission import archive
from reid_attack_bench.jobs.submission.archive import ENTRIES, FILES, opened_archive, place

KEY = "0" * 32
QUERY = place("craft", KEY, "query.npy")


def made(path: Path, *more: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive with the files of every submission, empty, and more."""
    with zipfile.ZipFile(path, "w", method) as content:
        for name in FILES:
            content.writestr(name, b"x")
        for name, text in more:
            content.writestr(name, text)
    return path


def link(name: str) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.external_attr = (stat.S_IFLNK | 0o777) << 16
    return found


def opens(path: Path) -> None:
    with opened_archive(path):
        pass


def test_what_belongs_there_opens(tmp_path: Path) -> None:
    path = made(tmp_path / "good.zip", (QUERY, b"images"), (place("victim", KEY, "weights.safetensors"), b"weights"))
    with opened_archive(path) as found:
        assert found.read("card.yaml") == b"x"
        found.extract(QUERY, tmp_path / "query.npy", 6)
        assert (tmp_path / "query.npy").read_bytes() == b"images"
        with pytest.raises(BenchError, match=r"query\.npy has 6 bytes, more than the 5 that belong there"):
            found.extract(QUERY, tmp_path / "query.npy", 5)
        with pytest.raises(BenchError, match=r"lacks store/craft/0+/gallery\.npy"):
            found.extract(place("craft", KEY, "gallery.npy"), tmp_path / "gallery.npy", 5)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (("../../escape.txt", b""), r"holds '\.\./\.\./escape\.txt', which is no part of a submission"),
        (("/etc/passwd", b""), "no part of a submission"),
        (("store/craft/../../x.npy", b""), "no part of a submission"),
        ((f"store/craft/{KEY}/sub/query.npy", b""), "no part of a submission"),
        ((f"store/craft/{KEY}/", b""), "no part of a submission"),
        ((f"store/rank/{KEY}/ranking.safetensors", b""), "no part of a submission"),
        ((f"store/craft/{KEY}/evil.py", b""), "no part of a submission"),
        ((f"store/craft/{KEY.upper()}A/query.npy", b""), "no part of a submission"),
        (("sitecustomize.py", b""), "no part of a submission"),
        (("x" * 5000, b""), "holds 'xxx.*…', which is no part"),
        (("CARD.YAML", b""), "no part of a submission"),
        ((link(QUERY), b"/etc/passwd"), r"query\.npy is a link or a device"),
        ((QUERY, b"\0" * (1 << 21)), r"query\.npy unpacks to [\d,]+ times its size"),
    ],
)
def test_what_does_not_belong_there_is_refused(
    tmp_path: Path, entry: tuple[str | zipfile.ZipInfo, bytes], says: str
) -> None:
    with pytest.raises(BenchError, match=says) as refused:
        opens(made(tmp_path / "bad.zip", entry))
    assert len(str(refused.value)) < 400


def test_a_name_that_ends_twice_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "nul.zip", (f"{QUERY}#.py", b""))
    path.write_bytes(path.read_bytes().replace(b"npy#.py", b"npy\0.py"))
    with pytest.raises(BenchError, match=r"query\.npy', which is no part of a submission"):
        opens(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"has 'card\.yaml' twice"):
        opens(made(tmp_path / "twice.zip", ("card.yaml", b"other")))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(BenchError, match="another method than deflate"):
        opens(made(tmp_path / "packed.zip", method=method))


def test_too_many_files_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as content:
        for number in range(ENTRIES + 1):
            content.writestr(f"store/craft/{number:032x}/query.npy", b"")
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(BenchError, match=r"lists 20,001 files in .*, and a submission has at most 20,000"):
        opens(path)
    assert time.process_time() - started < 0.1
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "less.zip", "w") as content:
        for each in FILES:
            if each != name:
                content.writestr(each, b"x")
    with pytest.raises(BenchError, match=f"is not a submission: it has no {name}"):
        opens(tmp_path / "less.zip")
    monkeypatch.setitem(archive.FILES, name, 0)
    with pytest.raises(BenchError, match=f"{name} unpacks to 1 bytes, more than 0"):
        opens(made(tmp_path / "large.zip"))


def test_all_of_it_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "TOTAL", 10)
    with pytest.raises(BenchError, match=r"unpacks to 13 bytes, more than 10"):
        opens(made(tmp_path / "large.zip", (QUERY, b"x" * 8)))


def flipped(content: bytes) -> bytes:
    place_of = content.index(b"images")
    return content[:place_of] + b"IMAGES" + content[place_of + 6 :]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: b"", "does not begin as a zip archive does"),
        (lambda content: b"no zip at all", "does not begin"),
        (lambda content: b"\x80\x04" + content, "does not begin as a zip archive does"),  # a pickle in front of it
        (lambda content: content + b"more", "does not end as a zip archive does"),
        (lambda content: content[:-30], "does not end"),
        (lambda content: content[:3], "does not begin"),
        (lambda content: content[:10], "not a readable submission"),
        (flipped, "not a readable submission: Bad CRC-32"),
        (lambda content: content[:-6] + struct.pack("<L", 7) + content[-2:], "not a readable submission|no part"),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    path = made(tmp_path / "bad.zip", (QUERY, b"images"), method=zipfile.ZIP_STORED)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BenchError, match=says), opened_archive(path) as found:
        found.extract(QUERY, tmp_path / "query.npy", 6)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not exist"):
        opens(tmp_path / "nothing.zip")
    with pytest.raises(BenchError, match="not a readable submission"):
        opens(tmp_path)
