"""The task's side alone: frames, whose fault it was, the store of an attempt."""

from pathlib import Path

import pytest
from whimbrel.runtime_failures import describe, unreadable_uris
from whimbrel.runtime_frames import Decoder, connect, encode, socket_path
from whimbrel.runtime_store import AttemptStore, StoreFull, UnreadableInput
from whimbrel.spec import Artifact, Owner


def test_frames_come_whole_however_they_are_cut() -> None:
    data = encode({"a": 1}) + encode([{"b": "é"}, {"c": None}])
    for size in (1, 3, len(data)):
        decoder = Decoder()
        heard = [
            message
            for start in range(0, len(data), size)
            for message in decoder.feed(data[start : start + size])
        ]
        assert heard == [{"a": 1}, {"b": "é"}, {"c": None}]


def test_a_long_folder_still_has_a_socket(tmp_path: Path) -> None:
    import socket

    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(socket_path(folder / "worker.sock"))
        server.listen()
        client = connect(socket_path(folder / "worker.sock"))
        assert client is not None
        client.close()
    assert (folder / "worker.sock").exists()


def test_nobody_listens(tmp_path: Path) -> None:
    assert connect(str(tmp_path / "nothing")) is None


@pytest.mark.parametrize(
    ("error", "owner", "kind", "message"),
    [
        (KeyError("k"), Owner.USER, "raised", "KeyError: 'k'"),
        (ValueError(), Owner.USER, "raised", "ValueError"),
        (SystemExit(), Owner.USER, "exited", "exited with status 0 without a result"),
        (SystemExit("bye"), Owner.USER, "exited", "exited with status 1 without a result"),
        (MemoryError(), Owner.USER, "oom", "out of memory"),
        (
            UnreadableInput("s3://b/k", "gone"),
            Owner.SYSTEM,
            "unreadable_input",
            "can't read s3://b/k",
        ),
        (StoreFull("can't write"), Owner.SYSTEM, "store_full", "can't write"),
    ],
)
def test_whose_fault(error: BaseException, owner: Owner, kind: str, message: str) -> None:
    failure = describe(error, inside="/nowhere")
    assert (failure.owner, failure.kind) == (owner, kind)
    assert failure.message.startswith(message)


def test_an_unreadable_input_is_seen_through_the_users_own_error() -> None:
    def load() -> None:
        try:
            raise UnreadableInput("file:///gone", "not there")
        except OSError as error:
            raise RuntimeError("my load failed") from error

    with pytest.raises(RuntimeError) as caught:
        load()
    assert describe(caught.value, inside="/nowhere").kind == "unreadable_input"
    assert unreadable_uris(caught.value) == ["file:///gone"]


def test_no_key_is_written_twice(tmp_path: Path) -> None:
    store = AttemptStore(f"file://{tmp_path}", "us-east", "p/d/x/n/1/3", str(tmp_path))
    (tmp_path / "in.txt").write_bytes(b"some bytes")
    first = store.put_file(tmp_path / "in.txt")
    second = store.put_file(tmp_path / "in.txt", name="a/b c.txt")
    assert first.uri != second.uri
    assert first.uri.startswith(f"file://{tmp_path}/p/d/x/n/1/3/")
    assert first.sha256 == second.sha256
    assert second.uri.endswith("/a_b_c.txt")
    copy = store.get_file(second)
    assert copy.name == "a_b_c.txt"
    assert copy.read_bytes() == b"some bytes"
    assert store.get_bytes(first) == b"some bytes"


def test_what_is_not_what_was_stored_is_unreadable(tmp_path: Path) -> None:
    store = AttemptStore(f"file://{tmp_path}", "us-east", "x", str(tmp_path))
    made = store.put_bytes(b"content", name="k")
    other = Artifact(made.uri, "0" * 64, made.bytes, made.region)
    with pytest.raises(UnreadableInput, match="not what was stored"):
        store.get_file(other)
    with pytest.raises(UnreadableInput):
        store.get_bytes(Artifact(f"{made.uri}-gone", "", 0, "us-east"))
