"""Two runs never share a folder: the lock names who holds it and dies with that process."""

import errno
import fcntl
import json
import os
import signal
import socket

import pytest

import quietray
from quietray.errors import ResourceError
from quietray.io.lock import Lock
from scans import disc_scan, quick

pytestmark = pytest.mark.usefixtures("short_report")


def in_other_process(work):
    """Return the pid of a child that has done something and waits to be killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(writer, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    return child


def killed(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def without_locks(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_lock_names_its_owner_and_dies_with_it(tmp_path):
    kept = []
    child = in_other_process(lambda: kept.append(Lock(tmp_path / ".lock", tmp_path)))
    with pytest.raises(ResourceError, match=rf"used by one run at a time.*process {child} on {socket.gethostname()}"):
        Lock(tmp_path / ".lock", tmp_path)
    killed(child)
    assert (tmp_path / ".lock").exists()  # what is left of it holds nothing
    lock = Lock(tmp_path / ".lock", tmp_path)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    with pytest.raises(ResourceError, match=f"process {os.getpid()}"):
        Lock(tmp_path / ".lock", tmp_path)
    lock.release()
    assert os.listdir(tmp_path) == []
    lock.release()  # a second time does nothing


def test_a_fork_of_the_owner_lets_nothing_go(tmp_path):
    lock = Lock(tmp_path / ".lock", tmp_path)
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(ResourceError, match="used by one run at a time"):
        Lock(tmp_path / ".lock", tmp_path)
    lock.release()


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """The last owner lets go between our opening its file and our taking the lock."""
    place, whole, calls = tmp_path / ".lock", fcntl.flock, []

    def flock(descriptor, how):
        if not calls:
            place.unlink()
        calls.append(descriptor)
        return whole(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Lock(place, tmp_path)
    assert len(calls) == 2
    assert place.exists()
    lock.release()


def test_where_the_file_system_knows_no_locks_what_stands_in_the_file_decides(tmp_path, monkeypatch):
    without_locks(monkeypatch)
    place, kept = tmp_path / ".lock", []
    child = in_other_process(lambda: kept.append(Lock(place, tmp_path)))
    with pytest.raises(ResourceError, match=f"process {child} on .*or remove {place} if that run is dead"):
        Lock(place, tmp_path)
    killed(child)
    Lock(place, tmp_path).release()
    began = {"host": socket.gethostname(), "pid": os.getpid(), "boot": "another", "began": "1"}
    for owner, free in ((began, True), ({**began, "host": "elsewhere"}, False), ([], True)):
        place.write_text(json.dumps(owner))
        if free:
            Lock(place, tmp_path).release()
        else:
            with pytest.raises(ResourceError, match="on elsewhere"):
                Lock(place, tmp_path)


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    (tmp_path / ".lock").symlink_to(mine)
    with pytest.raises(OSError, match="symbolic links"):
        Lock(tmp_path / ".lock", tmp_path)
    assert mine.read_text() == "precious"


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_second_run_into_a_folder_is_refused_while_the_first_goes(tmp_path, flags):
    out, scan = tmp_path / "out", quietray.read(disc_scan())
    out.mkdir()
    child = in_other_process(lambda: globals().update(kept=Lock(out / ".lock", out)))
    with pytest.raises(ResourceError, match=f"{out} must be used by one run at a time.*process {child}"):
        quietray.denoise(scan, out, quick(), **flags)
    assert os.listdir(out) == [".lock"]
    killed(child)
    quietray.denoise(scan, out, quick(), **flags)
    assert ".lock" not in os.listdir(out)


@pytest.mark.parametrize("verb", ["reconstruct", "train", "compare"])
def test_what_is_not_a_run_is_made_once_at_a_time(tmp_path, verb):
    out, scan = tmp_path / "new" / "out.h5", quietray.read(disc_scan())
    data = [scan] if verb == "train" else scan
    out.parent.mkdir()
    lock = Lock(out.parent / ".out.h5.lock", out)
    with pytest.raises(ResourceError, match=f"{out} must be used by one run at a time"):
        getattr(quietray, verb)(data, out, quick(format="h5"))
    lock.release()
    assert os.listdir(tmp_path / "new") == []
    if verb == "reconstruct":
        quietray.reconstruct(scan, out, quick(format="h5"))
        assert os.listdir(tmp_path / "new") == ["out.h5"]
