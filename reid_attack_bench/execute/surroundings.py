"""What a step finds of the process that it runs in, and leaves as it found it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import cv2
import numpy as np
import torch
from torch.nn.modules import module as torch_module

from reid_attack_bench.errors import BenchError

Setting = tuple[Callable[[], Any], Callable[[Any], Any]]
"""How a setting is read, and set."""


class _Exit(BaseException):
    """A call of os._exit."""


class Streams:
    """Standard output and error outside a step, whose own output goes to standard error.

    That holds for code in C and other programs too, unless standard output is a terminal, which others draw on.
    """

    def __init__(self, pressed: list[int]) -> None:
        self._outside, self._pressed = (sys.stdout, sys.stderr), pressed
        self._file: int | None = None

    def outside(self, call: Callable[..., None]) -> Callable[..., None]:
        """`call` with the streams that are outside the step: it tells about the step and is no part of it."""

        @functools.wraps(call)
        def called(*values: Any) -> None:
            with contextlib.redirect_stdout(self._outside[0]), contextlib.redirect_stderr(self._outside[1]):
                if self._file is None:
                    call(*values)
                else:
                    with _moved(self._file, _STDOUT):
                        call(*values)
            if self._pressed:  # and the step went on
                raise KeyboardInterrupt

        return called

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Context in which a step has its own."""
        with contextlib.ExitStack() as stack:
            if not os.isatty(_STDOUT):
                with contextlib.suppress(OSError):  # one of them is closed
                    self._file = stack.enter_context(_moved(_STDERR, _STDOUT))
            stack.enter_context(contextlib.redirect_stdout(_Stream(sys.stderr)))
            stack.enter_context(contextlib.redirect_stderr(_Stream(sys.stderr)))
            yield


_STDOUT, _STDERR = 1, 2


@contextlib.contextmanager
def _moved(source: int, number: int) -> Iterator[int | None]:
    """Context in which file descriptor `number` is what `source` is; gives another of what it was, None if closed."""
    _flush()
    try:
        before = os.dup(number)
    except OSError:
        before = None
    os.dup2(source, number)
    try:
        yield before
    finally:
        _flush()
        os.close(number) if before is None else os.dup2(before, number)
        if before is not None:
            os.close(before)


def _flush() -> None:
    """Write what Python and C hold back."""
    for stream in {sys.stdout, sys.__stdout__}:
        with contextlib.suppress(AttributeError, ValueError, OSError):  # none, or closed
            stream.flush()  # type: ignore[union-attr]
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def undisturbed() -> Iterator[Streams]:
    """Context in which a step runs. Afterwards the settings of the process are what they were, whatever the step did.

    What the step prints goes to standard error. A real Ctrl-C ends it with KeyboardInterrupt, also if it catches that.

    Raises:
        BenchError: the step raises something that is to end a program, or calls os._exit in this thread.
    """
    pressed: list[int] = []
    streams, before = Streams(pressed), [(put, get()) for get, put in _SETTINGS]
    try:
        with (
            _open_files(),
            streams.apart(),
            warnings.catch_warnings(),
            # left, they end the modes that were entered in them
            torch.inference_mode(mode=torch.is_inference_mode_enabled()),
            torch.set_grad_enabled(torch.is_grad_enabled()),
            _watching(pressed),
            _without_exit(),
        ):
            yield streams
    except BaseException as error:
        if not pressed and isinstance(error, Exception):
            raise
        if not pressed:
            raise BenchError(f"{ending(error)}: a plug-in returns, or raises an Exception") from error
    finally:
        for put, value in before:
            put(value)
    if pressed:
        raise KeyboardInterrupt


def where(error: BaseException) -> str:
    """Location "FILE:LINE: " of the innermost frame outside this file."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename != __file__]
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}: " if frames else ""


def ending(error: BaseException) -> str:
    """For people: "FILE:LINE: sys.exit(0) was called"."""
    if isinstance(error, SystemExit):
        said = f"sys.exit({'' if error.code is None else error.code}) was called"
    else:
        said = f"{error} was called" if isinstance(error, _Exit) else f"{type(error).__name__} was raised"
    return where(error) + said


class _Stream:
    """A stream that stays open when it is closed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        self._stream.flush()


@contextlib.contextmanager
def _without_exit() -> Iterator[None]:
    """Context in which os._exit raises, in this thread and process."""
    leave, here = os._exit, (os.getpid(), threading.get_ident())

    def ended(status: int) -> NoReturn:
        if (os.getpid(), threading.get_ident()) != here:  # such as the end of a process that the step forked
            leave(status)
        raise _Exit(f"os._exit({status})")

    os._exit = ended
    try:
        yield
    finally:
        os._exit = leave


@contextlib.contextmanager
def _watching(pressed: list[int]) -> Iterator[None]:
    """Context in which each SIGINT that has a handler is added to `pressed` too."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return

    def seen(number: int, frame: Any) -> None:
        pressed.append(number)
        handler(number, frame)

    signal.signal(signal.SIGINT, seen)
    yield  # the handler is one of _SETTINGS


@contextlib.contextmanager
def _open_files() -> Iterator[None]:
    """Context after which the first three file descriptors are what they were."""
    kept = {}
    for number in range(3):
        with contextlib.suppress(OSError):
            kept[number] = os.dup(number)
    try:
        yield
    finally:
        for number, copy in kept.items():
            if not _is_same_file(number, copy):
                os.dup2(copy, number)
            os.close(copy)


def _is_same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False


def _if_changed(get: Callable[[], Any], put: Callable[[Any], Any]) -> Setting:
    """A setting that is set only where it changed, as it is slow to set or cannot be set everywhere."""
    return get, lambda value: None if get() == value else put(value)


def _of(place: Any, *names: str) -> list[Setting]:
    """Attributes of `place`, as far as it has them."""
    return [
        _if_changed(functools.partial(getattr, place, name), functools.partial(setattr, place, name))
        for name in names
        if hasattr(place, name)
    ]


def _contents(place: Any) -> Setting:
    """What is in a list or mapping, which stays the same object."""

    def put(value: Any) -> None:
        place.clear()
        (place.extend if isinstance(place, list) else place.update)(value)

    return _if_changed(place.copy, put)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _random_states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), np.random.get_state(), random.getstate(), cuda


def _set_random_states(states: tuple[Any, ...]) -> None:
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    if states[3] is not None:
        torch.cuda.set_rng_state_all(states[3])


def _default_device() -> torch.device | None:
    """None if none was set."""
    context = getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)
    return None if context is None else context.device


def _handlers() -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}  # only the main thread sets them
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _go_to(directory: str) -> None:
    if directory:
        os.chdir(directory)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _flushes_denormals() -> bool:
    return not (torch.full((1,), 1e-310, dtype=torch.float64) * 1.0).item()


def _collect(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


_autocast: list[Setting] = [
    _if_changed(functools.partial(torch.is_autocast_enabled, kind), functools.partial(torch.set_autocast_enabled, kind))
    for kind in ("cpu", "cuda")
    if hasattr(torch, "get_autocast_dtype")  # from torch 2.4 on they take a kind of device
]

_hooks = [
    value for name, value in vars(torch_module).items() if name.startswith("_global_") and isinstance(value, dict)
]

_SETTINGS: list[Setting] = [
    (_directory, _go_to),
    _contents(os.environ),
    _contents(sys.path),
    _contents(sys.argv),
    *_of(sys, "stdin", "stdout", "stderr", "excepthook", "displayhook"),
    *_of(threading, "excepthook"),
    (_handlers, _set_handlers),
    _if_changed(_umask, os.umask),
    _if_changed(sys.gettrace, sys.settrace),
    _if_changed(sys.getprofile, sys.setprofile),
    _if_changed(sys.getrecursionlimit, sys.setrecursionlimit),
    _if_changed(gc.isenabled, _collect),
    _if_changed(functools.partial(locale.setlocale, locale.LC_ALL), functools.partial(locale.setlocale, locale.LC_ALL)),
    _if_changed(socket.getdefaulttimeout, socket.setdefaulttimeout),
    _if_changed(lambda: logging.root.manager.disable, logging.disable),
    _if_changed(np.geterr, lambda value: np.seterr(**value)),
    # device before dtype and random states, which make tensors
    _if_changed(_default_device, torch.set_default_device),
    _if_changed(torch.get_default_dtype, torch.set_default_dtype),
    _if_changed(torch.get_num_threads, torch.set_num_threads),
    _if_changed(cv2.getNumThreads, cv2.setNumThreads),
    _if_changed(_deterministic, lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1])),
    _if_changed(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    *_of(torch.backends.cudnn, "enabled", "benchmark", "deterministic"),
    _if_changed(_flushes_denormals, torch.set_flush_denormal),
    _if_changed(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    *_autocast,
    *map(_contents, _hooks),
    (_random_states, _set_random_states),
]
