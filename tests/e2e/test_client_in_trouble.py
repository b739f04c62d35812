"""The Python client against real servers that refuse, are busy, missing, or someone else."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from clip_client import (
    AsyncClipClient,
    ClipClient,
    ConnectionFailed,
    Embedding,
    FingerprintMismatch,
    InvalidInput,
    InvalidRequest,
    Retries,
    TimedOut,
    Unavailable,
    UnexpectedResponse,
)

from tests.support.photos import plain
from tests.support.servers import SERVE, SLOW, Server, free_port, running, wait_for

TRUCK = Path("adapters/models/demo/held_out/delivery_truck.png")
TRUCK_FILE = TRUCK.read_bytes()


@pytest.fixture
def clip(server: Server) -> Iterator[ClipClient]:
    with ClipClient(server.url) as client:
        yield client


def test_refusals_say_what_is_wrong(clip: ClipClient, server: Server) -> None:
    with pytest.raises(InvalidRequest) as caught:
        clip.classify(TRUCK, [])
    assert (caught.value.status, caught.value.code) == (422, "no_labels")
    assert "1 to 100" in caught.value.detail
    assert caught.value.request_id
    with pytest.raises(InvalidRequest, match="not an image file"):
        clip.embed(b"hello")
    with pytest.raises(InvalidRequest, match="exactly 768"):
        clip.anomaly_score(TRUCK, [1.0, 0.0])


def test_a_file_over_the_limit_is_refused_by_name(clip: ClipClient) -> None:
    just_over = TRUCK.read_bytes().ljust(10 * 1024 * 1024 + 1, b"\0")
    with pytest.raises(InvalidRequest, match="10485761") as caught:
        clip.embed(just_over)
    assert caught.value.code == "image_too_large"
    far_over = TRUCK.read_bytes().ljust(40 * 1024 * 1024, b"\0")
    with pytest.raises(InvalidRequest, match="16777216") as caught:
        clip.embed(far_over)
    assert caught.value.code == "body_too_large"


def test_one_text_in_place_of_a_list_is_noticed(clip: ClipClient) -> None:
    with pytest.raises(InvalidInput, match="labels is one str"):
        clip.classify(TRUCK, "a cat")
    with pytest.raises(InvalidInput, match="texts is one str"):
        clip.batch_similarity(TRUCK, "a cat")
    with pytest.raises(InvalidInput, match="frames is one str"):
        clip.baseline(str(TRUCK))
    with pytest.raises(InvalidInput, match="images is one bytes"):
        clip.embed_batch(b"file")  # type: ignore[arg-type]


def test_an_embedding_of_another_checkpoint_is_noticed(clip: ClipClient) -> None:
    stale = Embedding(clip.embed(TRUCK), fingerprint="another")
    with pytest.raises(FingerprintMismatch, match="another"):
        clip.anomaly_score(TRUCK, stale)


def test_it_waits_for_a_server_that_is_starting(tmp_path: Path) -> None:
    with (
        running(SLOW, tmp_path / "log", SLOW_SECONDS="1") as server,
        ClipClient(server.url) as clip,
    ):
        assert clip.health().status == "degraded"
        assert len(clip.embed(TRUCK)) == 768


def test_it_waits_for_room_in_a_full_queue(tmp_path: Path) -> None:
    slow = {"SLOW_SECONDS": "0.5", "CLIP_MAX_REQUESTS": "1", "CLIP_MAX_BATCH_SIZE": "1"}
    with running(SLOW, tmp_path / "log", **slow) as server:
        wait_for(server, "/health/ready")
        with ClipClient(server.url) as clip:
            lengths: list[int] = []
            threads = [
                threading.Thread(target=lambda n=n: lengths.append(len(clip.embed(plain(n, 0, 0)))))
                for n in range(3)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert lengths == [768] * 3


async def test_what_cannot_be_waited_for_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing-here")
    with running(SERVE, tmp_path / "log", CLIP_MODEL_PATH=missing) as server:
        async with AsyncClipClient(server.url, retries=Retries(times=0)) as clip:
            while (await clip.health()).reason == "the model is still being loaded.":
                pass
            with pytest.raises(Unavailable, match="nothing-here") as caught:
                await clip.embed(TRUCK)
        assert caught.value.code == "model_not_loaded"
        assert caught.value.retry_after_s == 30.0
        # 30 s is more than the client waits unless it is told to.
        with ClipClient(server.url) as patient, pytest.raises(Unavailable):
            patient.embed(TRUCK)


def test_a_slow_answer_runs_into_the_timeout(tmp_path: Path) -> None:
    with running(SLOW, tmp_path / "log", SLOW_SECONDS="1") as server:
        wait_for(server, "/health/ready")
        with ClipClient(server.url, timeout=0.2) as clip, pytest.raises(TimedOut):
            clip.embed(TRUCK)


def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with ClipClient(url) as clip, pytest.raises(ConnectionFailed, match=url):
        clip.embed(TRUCK)


def test_someone_else_there(server: Server) -> None:
    with (
        ClipClient(server.url + "/docs") as clip,
        pytest.raises(InvalidRequest, match="/docs/embed"),
    ):
        clip.embed(TRUCK)
    with (
        ClipClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, text="hi"))) as clip,
        pytest.raises(UnexpectedResponse),
    ):
        clip.health()


class ThreadNoticingFile(io.BytesIO):
    """Remembers which thread read it."""

    def read(self, size: int | None = -1) -> bytes:
        self.reader = threading.current_thread()
        return super().read(size)


async def test_files_are_read_off_the_event_loop(server: Server) -> None:
    file = ThreadNoticingFile(TRUCK_FILE)
    async with AsyncClipClient(server.url) as clip:
        assert len(await clip.embed(file)) == 768
    assert file.reader is not threading.current_thread()
