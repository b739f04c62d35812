"""Requests to the encoder's process, and its replies."""

import asyncio
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from adapters.encoders.process.encoder import (
    EncoderConnection,
    ProcessEncoder,
    ProcessEncoderLoader,
)
from adapters.encoders.process.messages import (
    Embeddings,
    EncodeImages,
    EncodeTexts,
    Failure,
    Report,
    Tokens,
    exchange,
    pack,
    read_request,
)
from application.ports import EncoderUnavailable
from domain.errors import (
    ClipError,
    EncoderFault,
    ModelNotReady,
    OutOfMemory,
    QueueFull,
    ServiceUnavailable,
)
from tests.support.encoder_processes import encoder_process
from tests.support.encoders import Loader, RecordingEncoder, pixels_of, vector_of


def test_images_of_several_callers_share_batches(directory: Path) -> None:
    recording = RecordingEncoder()
    with encoder_process(directory, Loader(recording)) as loader:
        encoder = loader.load()
        recording.image_batches.clear()
        recording.gate.clear()
        recording.busy.clear()
        rows: dict[int, np.ndarray] = {}

        def encode(number: int) -> None:
            rows[number] = encoder.encode_images(pixels_of(number)[np.newaxis])

        threads = [threading.Thread(target=encode, args=[number]) for number in (10, 20, 30)]
        threads[0].start()
        assert recording.busy.wait(10)
        for thread in threads[1:]:
            thread.start()
        while (report := loader.report()) is None or report.queue_depth < 2:
            pass
        recording.gate.set()
        for thread in threads:
            thread.join()
    assert recording.image_batches[0] == [10]
    assert sorted(recording.image_batches[1]) == [20, 30]
    for number, found in rows.items():
        np.testing.assert_allclose(found, [vector_of(number)], atol=1e-6)


def test_texts_are_encoded_once_for_all_fronts(directory: Path) -> None:
    recording = RecordingEncoder()
    with encoder_process(directory, Loader(recording)) as loader:
        one, another = loader.load(), loader.load()
        recording.text_batches.clear()
        np.testing.assert_array_equal(one.encode_texts(["7"]), another.encode_texts(["7"]))
        report = loader.report()
        assert report is not None
        assert report.cached_texts == 1
    assert recording.text_batches == [["7"]]


def test_tokens_are_counted_there(directory: Path) -> None:
    with encoder_process(directory, Loader(RecordingEncoder())) as loader:
        count = loader.load().count_tokens(["a", "more than ten letters"])
    assert (count.read, count.cut) == (4, 1)


def test_a_faulty_encoder_is_called_faulty_here_too(directory: Path) -> None:
    recording = RecordingEncoder()
    with encoder_process(directory, Loader(recording)) as loader:
        encoder = loader.load()
        recording.response = lambda rows: rows * np.nan
        with pytest.raises(EncoderFault, match="not finite"):
            encoder.encode_images(pixels_of(1)[np.newaxis])
        # It is verified, and fails: nobody gets anything of it, whichever front asks.
        with pytest.raises(ServiceUnavailable):
            encoder.encode_texts(["1"])


def test_an_unexpected_error_tells_nothing_of_the_inside(directory: Path) -> None:
    recording = RecordingEncoder()
    with encoder_process(directory, Loader(recording)) as loader:
        encoder = loader.load()
        recording.poison = 13.0
        with pytest.raises(RuntimeError) as raised:
            encoder.encode_images(pixels_of(13)[np.newaxis])
    assert "poisoned" not in str(raised.value)


def test_embeddings_of_another_model_are_refused(directory: Path) -> None:
    with encoder_process(directory, Loader(RecordingEncoder())) as loader:
        address = directory / "encoder.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(address))
            loader.load()
            for request, array in (
                (EncodeImages("other"), pixels_of(1)[np.newaxis]),
                (EncodeTexts("other", ["1"]), None),
            ):
                reply, rows = exchange(connection, request, array)
                assert isinstance(reply, Failure)
                assert reply.code == "model_changing"
                assert rows is None


def test_what_is_loading_is_waited_for(directory: Path) -> None:
    loading = Loader(RecordingEncoder())
    loading.gate.clear()
    with encoder_process(directory, loading) as loader:
        report = loader.report()
        assert report is not None
        assert not report.health.ready
        loaded: list[ProcessEncoder] = []
        waiting = threading.Thread(target=lambda: loaded.append(loader.load()))
        waiting.start()
        loading.gate.set()
        waiting.join(20)
    assert loaded[0].description.fingerprint == "r"


def test_why_nothing_could_be_loaded_is_known_here(directory: Path) -> None:
    with encoder_process(
        directory, Loader(EncoderUnavailable("there is no such model."))
    ) as loader:
        while (report := loader.report()) is None or report.health.reason is None:
            pass
        while "there is no such model" not in report.health.reason:
            report = loader.report() or report
            assert report.health.reason is not None


def test_a_process_that_is_not_there_is_no_fault_of_the_request(directory: Path) -> None:
    connection = EncoderConnection(directory / "encoder.sock")
    with pytest.raises(ModelNotReady, match="started again"):
        connection.request(Report())
    assert ProcessEncoderLoader(connection).report() is None


def test_a_process_that_ends_during_a_call_is_noticed_and_the_next_one_asked(
    directory: Path,
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(directory / "encoder.sock"))
        listening.listen()
        connection = EncoderConnection(directory / "encoder.sock")

        def end_at_the_first_request_and_reply_to_the_second() -> None:
            with listening.accept()[0] as first:
                first.recv(4)
            with listening.accept()[0] as second:
                second.recv(1024)
                for part in pack(Embeddings(), np.ones((1, 4), dtype=np.float32)):
                    second.sendall(part)

        ending = threading.Thread(target=end_at_the_first_request_and_reply_to_the_second)
        ending.start()
        with pytest.raises(ModelNotReady):
            connection.request(EncodeTexts("r", ["a"]))
        reply, rows = connection.request(EncodeTexts("r", ["a"]))
        ending.join()
        connection.close()
    assert reply == Embeddings()
    assert rows is not None
    assert rows.shape == (1, 4)


@pytest.mark.parametrize(
    "error",
    [
        QueueFull("full", retry_after_s=7),
        OutOfMemory("no memory", code="out_of_device_memory"),
        EncoderFault("odd"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_arrive_as_they_were_sent(error: ClipError) -> None:
    arrived = Failure.of(error).error()
    assert type(arrived) is type(error)
    assert isinstance(arrived, ClipError)
    assert (arrived.detail, arrived.code) == (error.detail, error.code)
    assert getattr(arrived, "retry_after_s", None) == getattr(error, "retry_after_s", None)


@pytest.mark.parametrize("piece", [1, 11, 13, 4096, 10**9])
@pytest.mark.parametrize("count", [1, 64])
def test_requests_and_replies_of_any_size_arrive_in_any_pieces(count: int, piece: int) -> None:
    sent = np.random.default_rng(count).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    replied = np.random.default_rng(count).standard_normal((count, 768)).astype(np.float32)
    received: list[np.ndarray | None] = []
    here, there = socket.socketpair()

    async def serve() -> None:
        reader, writer = await asyncio.open_unix_connection(sock=there)
        for _ in range(3):
            received.append((await read_request(reader))[1])
            reply = b"".join(pack(Embeddings(), replied))
            for start in range(0, len(reply), max(piece, len(reply) // 400)):
                writer.write(reply[start : start + max(piece, len(reply) // 400)])
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()

    serving = threading.Thread(target=asyncio.run, args=[serve()])
    serving.start()
    with here:
        for timeout in (None, 30, None):
            here.settimeout(timeout)
            reply, rows = exchange(here, EncodeImages("r"), sent)
            assert reply == Embeddings()
            np.testing.assert_array_equal(rows, replied)
        serving.join()
        with pytest.raises(OSError, match=r"closed|reset|[Bb]roken"):
            exchange(here, EncodeImages("r"), sent)
    for array in received:
        np.testing.assert_array_equal(array, sent)


def test_a_reply_that_is_too_long_is_no_reply() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"".join(pack(Embeddings())) + b"x")
        with pytest.raises(ConnectionResetError, match="more than its reply"):
            exchange(here, EncodeImages("r"))


def test_one_connection_serves_requests_with_and_without_a_time_limit(directory: Path) -> None:
    accepted = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(directory / "encoder.sock"))
        listening.listen()
        connection = EncoderConnection(directory / "encoder.sock")

        def reply_to_four() -> None:
            nonlocal accepted
            left = 4
            while left:
                with listening.accept()[0] as client:
                    accepted += 1
                    while left and client.recv(1024):
                        left -= 1
                        client.sendall(b"".join(pack(Tokens(1, 0))))

        replying = threading.Thread(target=reply_to_four)
        replying.start()
        for timeout_s in (5.0, None, 5.0, 5.0):
            connection.request(Report(), timeout_s=timeout_s)
        replying.join()
        connection.close()
    assert accepted == 1
