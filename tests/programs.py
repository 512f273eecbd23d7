"""`pushforward` as a process of its own, without the seconds that its imports take.

A server imports the library once and forks for each program. A program has descriptors, folder, environment, limits, session
and exit code of its own. Only what is read while modules are imported is that of the server,
so tests of such things start an interpreter.

    program = Program(["info", "guard.safetensors"], stdout=subprocess.PIPE)   # as subprocess.Popen
    shell(folder, "zcat x.csv.gz | pushforward score g - | head")              # a line of bash
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import json
import os
import resource
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LOADED = (
    "torch", "sklearn", "scipy.stats", "pyarrow.parquet", "pyarrow.csv", "pyarrow.dataset", "rich.table", "typer.main",
    "pushforward.cli.commands", "pushforward.cli.calibrating", "pushforward.cli.describing", "pushforward.cli.evaluating", "pushforward.cli.explaining",
    "pushforward.cli.exporting", "pushforward.cli.files", "pushforward.cli.network", "pushforward.cli.reporting",
    "pushforward.cli.scoring", "pushforward.cli.selecting", "pushforward.cli.serving", "pushforward.cli.show", "pushforward.cli.signing",
    "pushforward.data", "pushforward.estimators", "pushforward.io", "pushforward.models", "pushforward.report",
    "pushforward.training", "pushforward.service.server", "pushforward.service.app", "uvicorn", "uvicorn.protocols.http.httptools_impl",
)  # fmt: skip
"""Modules that the server imports."""

_servers: list[str] = []


def _address() -> str:
    """Path of the socket of the server, which is started on first use."""
    if _servers:
        return _servers[0]
    path = os.path.join(tempfile.mkdtemp(prefix="programs"), "socket")
    server = subprocess.Popen([sys.executable, __file__, "serve", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", "the server of programs did not start"
    atexit.register(server.wait)
    atexit.register(server.stdin.close)  # first: the server then ends
    atexit.register(server.stdout.close)
    _servers.append(path)
    return path


def _ask(path: str, descriptors: Sequence[int], **asked: Any) -> tuple[socket.socket, int]:
    """Start a program; the connection that tells its exit code, and its process."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    content = json.dumps(asked).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    connection.sendmsg([struct.pack("!I", len(content))], rights)
    connection.sendall(content)
    return connection, struct.unpack("!i", _exactly(connection, 4))[0]


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise EOFError("the server of programs has ended")
        found += part
    return found


class Program:
    """`pushforward` with some arguments, with the methods of ``subprocess.Popen`` that the tests use.

    Args:
        arguments: the words after ``pushforward``.
        cwd: its folder.
        env: its environment.
        stdout: a file, or ``subprocess.PIPE``.
        stderr: a file.
        quiet: whether warnings of Python are ignored, as by ``-W ignore``.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: Any,
        stderr: Any,
        quiet: bool = False,
    ) -> None:
        ours, theirs = os.pipe() if stdout == subprocess.PIPE else (None, stdout.fileno())
        self.stdout = None if ours is None else os.fdopen(ours, "rb")
        with open(os.devnull) as nothing:
            self._connection, self.pid = _ask(
                _address(), [nothing.fileno(), theirs, stderr.fileno()], arguments=list(arguments), folder=str(cwd),
                environment=dict(env), session=True, quiet=quiet, limit=None,
            )  # fmt: skip
        if ours is not None:
            os.close(theirs)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = struct.unpack("!i", _exactly(self._connection, 4))[0]
            self._connection.close()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for the exit code."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("pushforward", timeout)
            select.select([self._connection], [], [], 0.2)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which `pushforward` is this one; the exit code is that of the first program that failed."""
    own = shlex.join([sys.executable, "-I", "-S", __file__, "run", _address()])
    start = f'set -o pipefail; pushforward() {{ {own} "$@"; }}; '
    return subprocess.run(["bash", "-c", start + command], cwd=folder, capture_output=True, text=True, timeout=300)


def _run(path: str, arguments: Sequence[str]) -> int:
    """What `pushforward` is in the shell: it passes on its descriptors and waits."""
    connection, _ = _ask(
        path, [0, 1, 2], arguments=list(arguments), folder=os.getcwd(), environment=dict(os.environ), session=False, quiet=False,
        limit=resource.getrlimit(resource.RLIMIT_FSIZE),
    )  # fmt: skip
    code = struct.unpack("!i", _exactly(connection, 4))[0]
    return code if code >= 0 else 128 - code


def _serve(path: str) -> bool:
    """Fork for each program. Returns in each of them, with True if it ignores warnings, and ends with the tests."""
    import importlib

    for name in _LOADED:
        importlib.import_module(name)
    gc.freeze()  # a collection in a program would copy the memory of all objects
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    print("ready", flush=True)
    while True:
        ready = select.select([listener, wake, sys.stdin], [], [])[0]
        if sys.stdin in ready:
            os._exit(0)
        if wake in ready:
            wake.recv(4096)
            _report(running)
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        head, rights, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(12))
        descriptors = array.array("i", rights[0][2]).tolist()
        asked = json.loads(_exactly(connection, struct.unpack("!I", head)[0]))
        process = os.fork()
        if not process:
            signal.set_wakeup_fd(-1)
            for each in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(each, signal.SIG_DFL)
            for each in (listener, wake, woken, connection, *running.values()):
                each.close()
            _become(descriptors, asked)
            return bool(asked["quiet"])
        for descriptor in descriptors:
            os.close(descriptor)
        running[process] = connection
        connection.sendall(struct.pack("!i", process))


def _report(running: dict[int, socket.socket]) -> None:
    """Tell the exit code of each process that has ended; that of a signal is negative."""
    while running:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        with running.pop(process) as connection, contextlib.suppress(OSError):
            connection.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))


def _become(descriptors: Sequence[int], asked: Mapping[str, Any]) -> None:
    """Make this process the one that was asked for."""
    if asked["session"]:
        os.setsid()
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    if asked["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, tuple(asked["limit"]))
    sys.argv = ["pushforward", *asked["arguments"]]


def _main(quiet: bool) -> None:
    """Run the program of this process, and end it as an interpreter ends, but for the release of its memory."""
    import runpy
    import threading
    import warnings

    if quiet:
        warnings.simplefilter("ignore")
    code: Any = 0
    try:
        runpy.run_module("pushforward", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())  # pyright: ignore[reportArgumentType]
        code = 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            code = 120
            with contextlib.suppress(OSError):
                print(f"Exception ignored: {error!r}", file=sys.stderr, flush=True)
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    if sys.argv[1] == "run":
        sys.exit(_run(sys.argv[2], sys.argv[3:]))
    _main(_serve(sys.argv[2]))
