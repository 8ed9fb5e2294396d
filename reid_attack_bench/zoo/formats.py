"""Recognise files of weights, and what often comes in their place: a web page, a pointer, half a file."""

from __future__ import annotations

import html
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import IO, Any

from reid_attack_bench.errors import BenchError

_PAGE = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)", re.IGNORECASE | re.DOTALL
)
_ZIP = b"PK\x03\x04"
_POINTER = b"version https://git-lfs.github.com/spec/"
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of PyTorch's format before 1.6
_LONGEST_HEADER = 100 << 20  # bytes, the limit of safetensors itself

_OTHERS = {
    rb"\x08[\x01-\x1f][\x12\x1a\x3a\x42]": "an ONNX model (victim onnx)",
    rb"\x1f\x8b": "a gzip archive, to be unpacked,",
    rb".{257}ustar": "a tar archive, to be unpacked,",
    rb"7z\xbc\xaf|Rar!": "a packed archive, to be unpacked,",
    rb"\x89HDF": "an HDF5 file, as Keras writes them,",
    rb"\s*<\?xml": "an XML file, as of OpenVINO,",
    rb"\s*[{\[]": "a text file, perhaps JSON,",
    rb"\x93NUMPY": "one NumPy array",
}
"""First bytes of other files → what they are."""


def suffix_of(path: Path, what: str, elsewhere: str = "use --from DIR") -> str:
    """Suffix of a file of weights by its content: ".pth" or ".safetensors". No code in it is run.

    Args:
        what: the file in words, for errors.
        elsewhere: what to do with a file that was fetched in a browser, for errors.

    Raises:
        BenchError: the file is empty, a web page, a Git-LFS pointer, no checkpoint, or ends early.
    """
    suffix = kind_of(path, what, elsewhere)
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(0)
        if suffix == ".safetensors":
            _whole_safetensors(stream, path, what)
        elif start == _ZIP:
            _whole_zip(path, what)
        else:
            _whole_pickle(stream, path, what)
    return suffix


def kind_of(path: Path, what: str, elsewhere: str) -> str:
    """The same by its first bytes alone, so the file may end early; arguments as those of `suffix_of`.

    Raises:
        BenchError: the file is empty, a web page, a Git-LFS pointer, or no checkpoint.
    """
    with path.open("rb") as stream:
        start = stream.read(4096)
    if not start:
        raise BenchError(f"{what} is empty")
    if _PAGE.match(start):
        raise BenchError(f"{what} is a web page instead of weights{_said(path, elsewhere)}")
    if start.startswith(_POINTER):
        raise BenchError(
            f"{what} is a Git-LFS pointer instead of weights: run git lfs pull in the repository that it is from"
        )
    if start.startswith((_ZIP, b"\x80")):
        return ".pth"
    if start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") <= _LONGEST_HEADER:
        return ".safetensors"
    other = next((words for expression, words in _OTHERS.items() if re.match(expression, start, re.DOTALL)), "")
    raise BenchError(
        f"{what} is {other} instead of a checkpoint of PyTorch or safetensors"
        if other
        else f"{what} is not a checkpoint of PyTorch or safetensors: it starts with {start[:12]!r}"
    )


def _said(path: Path, elsewhere: str) -> str:
    """What a web page says, as far as it helps: the reason of Google Drive, else its title."""
    text = path.read_bytes()[: 1 << 20].decode("utf-8", "replace")
    if re.search(r"too many users|quota (has been )?exceeded|download quota", text, re.IGNORECASE):
        return f": its download quota is used up; try again in a day, or fetch it in a browser and {elsewhere}"
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    words = " ".join(html.unescape(title[1]).split())[:80] if title else ""
    return (f' ("{words}")' if words else "") + f": open its address in a browser, and {elsewhere}"


def _early(what: str, path: Path) -> BenchError:
    return BenchError(f"{what} ends early, after {path.stat().st_size} bytes: it was not copied to its end")


def _whole_zip(path: Path, what: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged, names = archive.testzip(), archive.namelist()
    except zipfile.BadZipFile as error:  # the table of contents is at the end
        raise _early(what, path) from error
    except (RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise BenchError(f"{what} is a damaged zip file: {error}") from error
    if damaged:
        raise BenchError(f"{what} is damaged: the checksum of {damaged} in it differs")
    if any(name.endswith("archive_format") for name in names):
        raise BenchError(f"{what} is a torch.export archive (victim torch-export) instead of weights")
    if not any(name.endswith("data.pkl") for name in names):
        raise BenchError(
            f"{what} is a zip file of {', '.join(names[:3]) or 'nothing'} instead of a checkpoint: unpack it, and name "
            "the file of weights in it"
        )


_BYTES = {
    "Double": 8, "Long": 8, "ComplexFloat": 8, "ComplexDouble": 16, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2,
    "Short": 2,
}  # fmt: skip
"""Of a value, by the name of its storage in torch; others have one."""


class _Nothing(dict[Any, Any]):
    """Stands for every class of a pickle, so that reading it runs no code of others."""

    def __new__(cls, *_: Any, **__: Any) -> _Nothing:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _Nothing:
        return _Nothing()

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class _Sizes(pickle.Unpickler):
    """Adds up the bytes of the storages that a checkpoint refers to; each is stored once."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="latin1")
        self.bytes_of: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        return type(name, (_Nothing,), {})

    def persistent_load(self, reference: Any) -> Any:
        if reference[0] != "storage":  # a class and its source, in files of whole models
            return reference[1]
        _, kind, key, _, count, *_ = reference  # ("storage", type, key, place, number of values, view)
        self.bytes_of[str(key)] = int(count) * _BYTES.get(kind.__name__.removesuffix("Storage"), 1)
        return _Nothing()


def _whole_pickle(stream: IO[bytes], path: Path, what: str) -> None:
    """PyTorch's format before 1.6: five pickles (number, protocol, system, object, keys), then the storages."""
    size = path.stat().st_size
    try:
        if _Sizes(stream).load() != _MAGIC:
            raise BenchError(f"{what} is a pickle, but not a checkpoint of PyTorch")
        for _ in range(2):
            _Sizes(stream).load()
        checkpoint = _Sizes(stream)
        checkpoint.load()
        keys = _Sizes(stream).load()
    except BenchError:
        raise
    except Exception as error:  # the end of the file, or bytes that are no pickle of this kind
        if stream.tell() >= size:
            raise _early(what, path) from error
        raise BenchError(f"{what} is a pickle, but not a checkpoint of PyTorch: {str(error)[:80]}") from error
    if size < stream.tell() + sum(8 + checkpoint.bytes_of.get(str(key), 0) for key in keys):
        raise _early(what, path)


def _whole_safetensors(stream: IO[bytes], path: Path, what: str) -> None:
    size = path.stat().st_size
    length = int.from_bytes(stream.read(8), "little")
    header = stream.read(length)
    if len(header) < length:
        raise _early(what, path)
    try:
        tensors = {name: about for name, about in json.loads(header).items() if name != "__metadata__"}
        end = max((about["data_offsets"][1] for about in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise BenchError(f"{what} is not a readable safetensors file: its header is damaged") from error
    if size < 8 + length + end:
        raise _early(what, path)
