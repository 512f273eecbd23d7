"""A file is replaced in one step or stays as it was."""

import os
import stat
import threading

import pytest

from pushforward.errors import StorageError
from pushforward.io import atomic_write


def test_the_old_file_stays_until_the_block_ends(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), StorageError("x")])
def test_an_error_in_the_block_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(type(error)) as caught, atomic_write(path) as file:
        file.write(b"new")
        raise error
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_an_error_of_the_system_names_the_file(tmp_path):
    with (
        pytest.raises(StorageError, match=r"cannot write .*f: no space left on device\."),
        atomic_write(tmp_path / "f"),
    ):
        raise OSError(28, "No space left on device")
    for path, words in ((tmp_path, "it is a directory"), (tmp_path / "absent" / "f", "no such file or directory")):
        with pytest.raises(StorageError, match=words), atomic_write(path):
            pass
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes.")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    with atomic_write(pipe) as file:
        file.write(b"whole")
    reader.join(10)
    assert found == [b"whole"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_private_file_is_private_while_it_is_rewritten(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with atomic_write(path) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        file.write(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="this system has no /dev/fd.")
def test_an_open_pipe_without_a_path_is_written_to():
    end, start = os.pipe()
    try:
        with atomic_write(f"/dev/fd/{start}") as file:
            file.write(b"whole")
        os.close(start)
        start = -1
        assert os.read(end, 100) == b"whole"
    finally:
        for one in (end, start):
            if one >= 0:
                os.close(one)
