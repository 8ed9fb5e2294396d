"""Download files of weights over HTTP and from Google Drive, into a partial file that resumes."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import replace_file

Progress = Callable[[int, "int | None", str], None]
"""Called with bytes so far, bytes in all if known, and a note."""

_TRIES = 5
_BLOCK = 1 << 14  # bytes; what comes of the last block before a drop is lost
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between bytes
_LATER = (408, 425, 429, 500, 502, 503, 504)
_WORDS = {401: "wants a login", 403: "refuses access", 404: "has no such file", 410: "no longer has the file"}
_INSTEAD = "fetch it in a browser, and use --from DIR"


class _RetryError(Exception):
    """The connection failed in a way that may pass."""


@dataclass(frozen=True)
class _Told:
    """What a server told of the file that a partial file is the start of.

    Attributes:
        address: of the file.
        validator: strong ETag, or the date of the last change; empty if it told neither, so it cannot be resumed.
        size: bytes in all; None if unknown.
    """

    address: str
    validator: str = ""
    size: int | None = None


def download(
    url: str,
    partial: Path,
    progress: Progress = lambda done, total, note: None,
    *,
    wait: Callable[[float], None] = time.sleep,
    tries: int = _TRIES,
) -> None:
    """Download `url` into `partial`; continue one that broke off, also that of an earlier call.

    A partial file is continued only if the server says that it is still the start of the same file (If-Range).

    Args:
        wait: called with seconds between tries.
        tries: connections that may fail.

    Raises:
        BenchError: the server refuses, or all tries failed; `partial` is kept to be continued.
    """
    for failures in range(1, tries + 1):
        try:
            _attempt(url, partial, progress)
            _about(partial).unlink(missing_ok=True)
            return
        except (_RetryError, requests.RequestException) as error:
            have = partial.stat().st_size if partial.is_file() else 0
            if failures == tries:
                raise BenchError(f"{url}: {_reason(error)}, {tries} times{_kept(have)}") from error
            progress(have, None, f"{_reason(error)}; again")
            wait(2.0 ** (failures - 1))


def _kept(have: int) -> str:
    return f"; {have} bytes are here, and the same command continues them" if have else ""


def _attempt(url: str, partial: Path, progress: Progress) -> None:
    """One connection; returns when the file is whole."""
    told, have = _told(partial), partial.stat().st_size if partial.is_file() else 0
    headers = {"Accept-Encoding": "identity"}  # sizes and offsets are of the file itself
    resumes = bool(have and told.address == url and told.validator)
    if resumes:
        headers |= {"Range": f"bytes={have}-", "If-Range": told.validator}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if resumes and answer.status_code == 416 and _total(answer.headers) == have:
            return  # it was whole already
        if answer.status_code == 416 or (answer.status_code == 206 and not _continues(answer, have, told, resumes)):
            partial.unlink(missing_ok=True)
            raise _RetryError("the server cannot continue what is here")
        if answer.status_code not in (200, 206):
            _refused(url, answer.status_code)
        start = have if answer.status_code == 206 else 0
        length = answer.headers.get("Content-Length", "")
        size = start + int(length) if length.isdigit() else None
        partial.parent.mkdir(parents=True, exist_ok=True)
        _remember(partial, _Told(url, _validator(answer.headers), size))
        with partial.open("r+b" if start else "wb") as stream:
            stream.seek(start)
            done = start
            for block in answer.iter_content(_BLOCK):
                done += stream.write(block)
                progress(done, size, "")
    if size is not None and done < size:
        raise _RetryError(f"ended after {done} of {size} bytes")


def _continues(answer: requests.Response, have: int, told: _Told, resumes: bool) -> bool:
    """Whether a partial answer starts where the partial file ends, and is of the same file."""
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if not resumes or found is None or int(found[1]) != have:
        return False
    validator = _validator(answer.headers)
    same = not validator or validator == told.validator
    return same and (told.size is None or found[2] in ("*", str(told.size)))


def _refused(url: str, status: int) -> None:
    if status in _LATER:
        raise _RetryError(f"the server answers {status}")
    raise BenchError(f"the server {_WORDS.get(status, 'gives no file')} ({status}) at {url}: {_INSTEAD}")


def _validator(headers: Mapping[str, str]) -> str:
    """What If-Range takes: an ETag that is not weak, else the date of the last change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _total(headers: Mapping[str, str]) -> int | None:
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _reason(error: Exception) -> str:
    if isinstance(error, _RetryError):
        return str(error)
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was dropped"
    return "no connection" if isinstance(error, requests.ConnectionError) else " ".join(str(error).split())[:100]


def _about(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _told(partial: Path) -> _Told:
    try:
        return _Told(**json.loads(_about(partial).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _Told("")


def _remember(partial: Path, told: _Told) -> None:
    replace_file(_about(partial), json.dumps(vars(told)).encode())


def discard(partial: Path) -> None:
    """Delete a partial file that is of no use."""
    partial.unlink(missing_ok=True)
    _about(partial).unlink(missing_ok=True)


def download_from_drive(
    file_id: str,
    partial: Path,
    progress: Progress = lambda done, total, note: None,
    fetch: Callable[..., Any] | None = None,
) -> None:
    """Download a file of Google Drive into `partial`, with gdown, which resumes by itself.

    Args:
        fetch: gdown.download, or what stands for it.

    Raises:
        BenchError: Drive refuses, such as for its quota; or the connection failed.
    """
    fetch = fetch or importlib.import_module("gdown").download
    options = {
        "id": file_id,
        "output": str(partial),
        "quiet": True,
        "resume": True,
        "progress": lambda done, total: progress(done, total, ""),
        "retries": _TRIES - 1,
        "timeout": _TIMEOUT,
    }
    known = inspect.signature(fetch).parameters  # older versions lack the last ones
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values()):
        options = {name: value for name, value in options.items() if name in known}
    partial.parent.mkdir(parents=True, exist_ok=True)
    discard(partial)  # gdown keeps the start of a file under a name of its own
    where = f"https://drive.google.com/file/d/{file_id}/view"
    try:
        done = fetch(**options)
    except requests.RequestException as error:
        raise BenchError(f"{where}: {_reason(error)}") from error
    except Exception as error:  # gdown's own errors, which depend on its version
        raise BenchError(f"Google Drive gives no file at {where}{_drive_reason(error)}: {_INSTEAD}") from error
    if done is None or not partial.is_file():
        raise BenchError(f"Google Drive gives no file at {where}: {_INSTEAD}")


def _drive_reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if re.search(r"too many users|quota|many accesses", text, re.IGNORECASE):
        return " (its download quota is used up; try again in a day)"
    if re.search(r"permission|cannot retrieve the public link|access denied", text, re.IGNORECASE):
        return " (it is not shared with everyone, or asked too often)"
    if re.search(r"max retries exceeded|connectionpool|timed out", text, re.IGNORECASE):
        return " (no connection)"
    return f" ({text[:100]})" if text else ""
