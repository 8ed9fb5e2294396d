"""Downloads from a server that misbehaves, and from a Google Drive that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reid_attack_bench.errors import BenchError
from reid_attack_bench.zoo.download import download, download_from_drive
from tests.zoo.server import Server, serving

BLOCK = 1 << 14
"""Bytes that are read at once: what comes of the last block before a drop is lost."""

CONTENT = bytes(range(256)) * 2048


def got(server: Server, partial: Path, **options: Any) -> list[float]:
    """Seconds waited between the tries of a download."""
    waits: list[float] = []
    download(server.url, partial, wait=waits.append, **options)
    return waits


def test_a_file_is_downloaded_and_its_progress_told(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    with serving(content=CONTENT) as server:
        download(server.url, tmp_path / "a" / "file", lambda done, total, note: told.append((done, total)))
    assert (tmp_path / "a" / "file").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_dropped_connection_is_continued_where_it_ended(tmp_path: Path) -> None:
    with serving(content=CONTENT, drops=[6 * BLOCK, 3 * BLOCK]) as server:
        waits = got(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["", f"bytes={6 * BLOCK}-", f"bytes={9 * BLOCK}-"]
    assert server.sent == [6 * BLOCK, 3 * BLOCK, len(CONTENT) - 9 * BLOCK]
    assert waits == [1.0, 2.0]


def test_a_later_call_continues_what_an_earlier_one_left(tmp_path: Path) -> None:
    with serving(content=CONTENT, drops=[4 * BLOCK + 5]) as server:
        with pytest.raises(BenchError, match="65536 bytes are here, and the same command continues") as raised:
            got(server, tmp_path / "file", tries=1)
        assert "\n" not in str(raised.value)
        got(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.sent == [4 * BLOCK + 5, len(CONTENT) - 4 * BLOCK]


def test_a_server_that_sends_no_parts_starts_again(tmp_path: Path) -> None:
    with serving(content=CONTENT, drops=[4 * BLOCK], ranges=False) as server:
        got(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["", f"bytes={4 * BLOCK}-"]


def test_another_file_at_the_same_address_is_not_appended(tmp_path: Path) -> None:
    with serving(content=CONTENT, drops=[4 * BLOCK]) as server:
        with pytest.raises(BenchError):
            got(server, tmp_path / "file", tries=1)
        server.content, server.tag = CONTENT[::-1], '"two"'
        got(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("part", ["bytes 0-524287/524288", "bytes 65536-524287/600000", "nonsense"])
def test_a_part_that_does_not_fit_is_not_appended(tmp_path: Path, part: str) -> None:
    with serving(content=CONTENT, drops=[4 * BLOCK], part=part) as server:
        got(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["", f"bytes={4 * BLOCK}-", ""]


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_strong_tag_nothing_is_continued(tmp_path: Path, tag: str) -> None:
    with serving(content=CONTENT, drops=[4 * BLOCK], tag=tag) as server:
        got(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["", ""]


def test_the_start_of_a_file_of_another_address_is_not_continued(tmp_path: Path) -> None:
    with serving(content=CONTENT, drops=[4 * BLOCK]) as server:
        with pytest.raises(BenchError):
            got(server, tmp_path / "file", tries=1)
        server.url += "?other"
        got(server, tmp_path / "file")
    assert server.asked == ["", ""]


def test_a_part_that_is_whole_already_is_kept(tmp_path: Path) -> None:
    with serving(content=CONTENT, says=len(CONTENT) + 5) as server:
        with pytest.raises(BenchError, match=r"dropped|ended after"):
            got(server, tmp_path / "file", tries=1)
        server.says = None
        got(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.sent == [len(CONTENT)]


def test_tries_are_bounded(tmp_path: Path) -> None:
    with serving(content=CONTENT, drops=[BLOCK] * 9) as server:
        waits: list[float] = []
        with pytest.raises(BenchError, match="the connection was dropped, 5 times; 81920 bytes are here"):
            download(server.url, tmp_path / "file", wait=waits.append)
    assert len(server.asked) == 5
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_an_overloaded_server_is_asked_again(tmp_path: Path) -> None:
    with serving(content=CONTENT, statuses=[503, 429]) as server:
        assert got(server, tmp_path / "file") == [1.0, 2.0]
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "gives no file"),
        (401, "wants a login"),
        (403, "refuses access"),
        (404, "has no such file"),
        (410, "no longer has the file"),
    ],
)
def test_a_refusal_is_said_at_once(tmp_path: Path, status: int, says: str) -> None:
    with serving(content=CONTENT, statuses=[status] * 5) as server:
        with pytest.raises(BenchError, match=rf"{says} \({status}\) at http.*--from DIR"):
            got(server, tmp_path / "file")
        assert len(server.asked) == 1
    assert not (tmp_path / "file").exists()


def test_no_server_is_said_in_plain_words(tmp_path: Path) -> None:
    with serving() as server:
        pass
    with pytest.raises(BenchError, match=r"no connection, 2 times$"):
        download(server.url, tmp_path / "file", wait=lambda seconds: None, tries=2)


def test_drive_is_asked_for_the_file_by_its_id(tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def fetch(**options: Any) -> str:
        asked.update(options)
        Path(options["output"]).write_bytes(CONTENT)
        options["progress"](5, None)
        return str(options["output"])

    told: list[int] = []
    download_from_drive("abc", tmp_path / "a" / "file", lambda done, total, note: told.append(done), fetch)
    assert (asked["id"], asked["resume"], told) == ("abc", True, [5])
    assert (tmp_path / "a" / "file").read_bytes() == CONTENT


def test_an_older_gdown_without_progress_is_used_too(tmp_path: Path) -> None:
    def fetch(id: str, output: str, quiet: bool, resume: bool) -> str:
        Path(output).write_bytes(CONTENT)
        return output

    download_from_drive("abc", tmp_path / "file", fetch=fetch)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("Failed to retrieve:\n\n\tToo many users have viewed this file recently.", "download quota is used up"),
        ("Cannot retrieve the public link of the file. You may need to change the permission", "not shared with"),
        ("HTTPSConnectionPool(host='drive.google.com', port=443): Max retries exceeded", "no connection"),
        ("something else", "something else"),
    ],
)  # fmt: skip
def test_errors_of_drive_are_said_in_one_line(tmp_path: Path, words: str, says: str) -> None:
    def fetch(**options: Any) -> str:
        raise RuntimeError(words)

    with pytest.raises(BenchError, match=says) as raised:
        download_from_drive("abc", tmp_path / "file", fetch=fetch)
    assert "https://drive.google.com/file/d/abc/view" in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(BenchError, match="gives no file"):
        download_from_drive("abc", tmp_path / "file", fetch=lambda **options: None)
