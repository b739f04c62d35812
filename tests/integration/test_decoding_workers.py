"""Whatever a picture does to its decoder, others get their own pixels, and the pool goes on."""

import asyncio
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from adapters.images.decoding_worker import END, ORDER
from adapters.images.decoding_worker import fork_server as serve_forks
from adapters.images.decoding_workers import Budget, DecodingWorkers
from adapters.images.fork_server import ForkServer, ForkServerLost
from adapters.images.picture import decode_picture
from adapters.images.pillow_preparation import prepare_picture
from adapters.images.preprocessing import channels_first
from application.ports import CLIPS_INPUT, ImageInput, Pixels
from domain.errors import (
    ClipError,
    Draining,
    ImageTooLarge,
    InvalidImage,
    OutOfMemory,
    ServiceUnavailable,
)
from tests.support import decoders
from tests.support.photos import as_file, photo

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="limits of memory and the processes' files are Linux's"
)

SIZE = CLIPS_INPUT.size
MIB = 2**20


@asynccontextmanager
async def workers(
    count: int = 2, *, memory_mib: int = 100, cpu_s: float = 0.5, wall_s: float = 30
) -> AsyncIterator[DecodingWorkers]:
    """Workers that do as their files say."""
    pool = DecodingWorkers(
        count,
        budget=Budget(memory_bytes=memory_mib * MIB, cpu_s=cpu_s, wall_s=wall_s),
        decoder=decoders.NAME,
    )
    try:
        yield pool
    finally:
        await pool.close()


def expected(number: int) -> Pixels:
    """Of ``pixels NUMBER``."""
    return channels_first(decoders.levels(number, SIZE))


async def goes_on(pool: DecodingWorkers) -> bool:
    """Whether pictures come out right."""
    for number in (0, 1, 70_000):
        if not np.array_equal(await pool.prepare(b"pixels %d" % number), expected(number)):
            return False
    return True


async def refused(pool: DecodingWorkers, file: bytes) -> ClipError:
    with pytest.raises(ClipError) as caught:
        await pool.prepare(file)
    return caught.value


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def fork_server(pid: int | None = None) -> int:
    """The child of a process, by default of this one, that forks decoding workers."""
    tasks = Path(f"/proc/{pid or os.getpid()}/task").iterdir()
    return next(
        int(child)
        for task in tasks
        for child in (task / "children").read_text().split()
        if b"decoding_worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    )


def until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_pixels_are_those_of_decoding_in_the_same_process() -> None:
    cat = as_file(photo("cat"), "JPEG")
    pool = DecodingWorkers(1)
    try:
        np.testing.assert_array_equal(await pool.prepare(cat), prepare_picture(cat))
    finally:
        await pool.close()


async def test_refusals_cross_the_boundary_as_they_are() -> None:
    async with workers() as pool:
        damaged = await refused(pool, b"refuse truncated")
        assert type(damaged) is InvalidImage
        assert (damaged.detail, damaged.code) == ("image is truncated.", "damaged_image")
        large = await refused(pool, b"too_large")
        assert type(large) is ImageTooLarge
        assert (large.detail, large.code) == ("image is large.", "image_too_large")
        with pytest.raises(RuntimeError, match="ZeroDivisionError: in the decoder"):
            await pool.prepare(b"fail")
        assert await goes_on(pool)


@pytest.mark.parametrize("size", [0, 1, 200_000, 10 * MIB])
async def test_files_of_any_size_arrive_whole(size: int) -> None:
    async with workers() as pool:
        file = b"pixels 7 " + b"x" * size
        np.testing.assert_array_equal(await pool.prepare(file), expected(7))
        assert await goes_on(pool)


async def test_more_memory_than_the_budget_is_too_expensive() -> None:
    async with workers() as pool:
        error = await refused(pool, b"allocate %d" % (200 * MIB))
        assert (type(error), error.code) == (InvalidImage, "image_too_expensive")
        assert "100 MiB of memory" in error.detail
        await pool.prepare(b"allocate %d" % (50 * MIB))
        assert await goes_on(pool)


async def test_more_processor_time_than_the_budget_is_too_expensive() -> None:
    async with workers() as pool:
        error = await refused(pool, b"loop")
        assert (type(error), error.code) == (InvalidImage, "image_too_expensive")
        assert "0.5 seconds of processor time" in error.detail
        assert await goes_on(pool)


async def test_a_worker_that_does_nothing_is_replaced() -> None:
    async with workers(wall_s=0.5) as pool:
        error = await refused(pool, b"sleep")
        assert isinstance(error, ServiceUnavailable)
        assert error.code == "decoding_timed_out"
        assert await goes_on(pool)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
async def test_a_crash_costs_the_picture_and_nothing_else(name: str) -> None:
    async with workers() as pool:
        error = await refused(pool, b"signal %d" % getattr(signal, name))
        assert (type(error), error.code) == (InvalidImage, "decoder_crashed")
        assert name in error.detail
        assert await goes_on(pool)


async def test_a_crash_that_does_not_come_again_is_not_the_pictures(tmp_path: Path) -> None:
    async with workers() as pool:
        await pool.prepare(b"crash_once %s" % str(tmp_path / "crashed").encode())
        assert (tmp_path / "crashed").exists()


async def test_a_picture_whose_workers_are_killed_each_time_is_told_of_short_memory() -> None:
    async with workers() as pool:
        assert isinstance(await refused(pool, b"signal %d" % signal.SIGKILL), OutOfMemory)
        assert await goes_on(pool)


async def test_others_are_decoded_while_one_breaks_its_budget() -> None:
    async with workers(2, cpu_s=2) as pool:
        await pool.start()
        attack = asyncio.create_task(refused(pool, b"loop"))
        meanwhile = 0
        while not attack.done():
            assert await goes_on(pool)
            meanwhile += 1
        assert meanwhile > 3
        assert attack.result().code == "image_too_expensive"


async def test_all_workers_killed_at_once() -> None:
    async with workers(4) as pool:
        await pool.start()
        for pid in children(fork_server()):
            os.kill(pid, signal.SIGKILL)
        assert all(await asyncio.gather(*(goes_on(pool) for _ in range(32))))


async def test_results_of_any_size_come_out_whole_in_turn() -> None:
    async with workers(2) as pool:
        await pool.start()
        for side in (224, 384, 64, 512, 224):
            found = await pool.prepare(b"pixels 70000", ImageInput(size=side))
            np.testing.assert_array_equal(found, channels_first(decoders.levels(70_000, side)))


def test_a_fork_server_that_another_thread_has_closed_is_lost() -> None:
    server = ForkServer(
        {
            "decoder": decoders.NAME,
            "options": {"max_pixels": 1},
            "memory_bytes": 100 * MIB,
            "cpu_s": 1.0,
        }
    )
    server.close()
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ForkServerLost):
        server.fork((theirs.fileno(), theirs.fileno()))


def test_the_fork_server_ends_quietly_when_its_server_was_killed_with_a_reply_unread() -> None:
    here, there = socket.socketpair()
    with ThreadPoolExecutor(1) as threads, there:
        running = threads.submit(serve_forks, there, decode_picture, {})
        here.sendall(ORDER.pack(END, 2**31 - 1))  # no process has that number
        assert select.select([here], [], [], 20)[0]
        here.close()
        running.result(20)


async def test_the_fork_server_killed() -> None:
    async with workers(2) as pool:
        await pool.start()
        first = fork_server()
        old = children(first)
        assert len(old) == 2
        os.kill(first, signal.SIGKILL)
        assert until(lambda: all(map(gone, old)))
        assert all(await asyncio.gather(*(goes_on(pool) for _ in range(8))))
        assert fork_server() != first


async def test_who_leaves_never_has_his_picture_mistaken_for_the_next_ones() -> None:
    async with workers(2) as pool:
        await pool.start()

        async def decoded(number: int) -> bool:
            return np.array_equal(await pool.prepare(b"slow %d" % number), expected(number))

        for number in range(0, 60, 3):
            asked = [asyncio.create_task(decoded(number + place)) for place in range(3)]
            await asyncio.sleep(number / 20_000)
            asked[0].cancel()
            assert all(await asyncio.gather(*asked[1:]))
        assert await goes_on(pool)


async def test_a_worker_that_talks_nonsense_is_replaced() -> None:
    async with workers(1) as pool:
        for reply in ("D" * 400, "R\4\0\0\0nope", "D\0\0\0\0D\0\0\0\0"):
            assert isinstance(await refused(pool, f"reply {reply}".encode()), OutOfMemory)
            assert await goes_on(pool)


async def test_pictures_in_progress_when_the_pool_closes_are_refused() -> None:
    async with workers(2) as pool:
        asked = [asyncio.create_task(refused(pool, b"sleep")) for _ in range(3)]
        await asyncio.sleep(0.5)
        await pool.close()
        for error in await asyncio.gather(*asked):
            assert isinstance(error, Draining)


@pytest.mark.long
async def test_a_thousand_kills_among_a_thousand_pictures() -> None:
    done = threading.Event()
    killed = 0

    def kill_some() -> None:
        nonlocal killed
        rng = random.Random(1)
        while not done.is_set():
            try:
                victim = rng.choice(children(fork_server()))
                killed += not gone(victim)
                os.kill(victim, signal.SIGKILL)
            except (StopIteration, OSError, IndexError):
                pass  # it has ended by itself meanwhile
            time.sleep(rng.random() / 500)

    async def decoded(number: int) -> bool:
        while True:
            try:
                return np.array_equal(await pool.prepare(b"slow %d" % number), expected(number))
            except OutOfMemory:  # killed again and again; the client would come back
                pass

    async with workers(4) as pool:
        await pool.start()
        killer = threading.Thread(target=kill_some)
        killer.start()
        rounds = 0
        try:
            while rounds == 0 or killed < 1000:
                assert all(await asyncio.gather(*map(decoded, range(1000))))
                rounds += 1
        finally:
            done.set()
            killer.join()
        assert await goes_on(pool)


def test_a_limit_that_others_set_is_the_machines_and_not_the_pictures() -> None:
    program = f"""
import asyncio
import resource
from pathlib import Path
from adapters.images.decoding_workers import Budget, DecodingWorkers
from domain.errors import OutOfMemory

resource.setrlimit(resource.RLIMIT_AS, (400 * 2**20, 400 * 2**20))
pool = DecodingWorkers(
    1, budget=Budget(memory_bytes=600 * 2**20), decoder={decoders.NAME!r}
)
async def main():
    await pool.prepare(b"pixels 1")
    for file in (b"allocate %d" % (500 * 2**20), b"refuse damaged"):
        try:
            await pool.prepare(file)
        except OutOfMemory as short:
            assert short.code == "out_of_memory"
        else:
            raise AssertionError(file)
    await pool.prepare(b"pixels 1")
    await pool.close()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


async def test_without_file_descriptors_pictures_are_refused_until_there_are_some() -> None:
    async with workers(1) as pool:
        assert await goes_on(pool)
        os.kill(children(fork_server())[0], signal.SIGKILL)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        fillers: list[int] = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
            while True:  # up to the last one
                fillers.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            error = await refused(pool, b"pixels 1")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in fillers:
                os.close(each)
        assert isinstance(error, ServiceUnavailable)
        assert error.code == "no_decoder"
        assert await goes_on(pool)


async def test_no_files_and_no_processes_are_left_behind() -> None:
    async with workers(2) as pool:
        assert await goes_on(pool)
    before = len(os.listdir("/proc/self/fd"))
    async with workers(2) as pool:
        await pool.start()
        first = fork_server()
        members = [first, *children(first)]
        for _ in range(20):
            await refused(pool, b"signal %d" % signal.SIGSEGV)
    del pool
    assert until(lambda: all(map(gone, members)))
    assert len(os.listdir("/proc/self/fd")) <= before
    async with workers(1) as pool:
        await pool.close()
        assert isinstance(await refused(pool, b"pixels 1"), Draining)


async def test_workers_know_nothing_of_the_servers_environment() -> None:
    os.environ["CLIP_API_KEYS"] = "a-secret-that-no-decoder-needs"
    try:
        async with workers(1) as pool:
            assert "CLIP_API_KEYS" not in (await refused(pool, b"environment")).detail
    finally:
        del os.environ["CLIP_API_KEYS"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
async def test_workers_outlive_the_signals_that_stop_the_server(name: str) -> None:
    async with workers(1) as pool:
        await pool.start()
        first = fork_server()
        members = [first, *children(first)]
        for pid in members:
            os.kill(pid, getattr(signal, name))
        assert await goes_on(pool)
        assert [first, *children(first)] == members


def test_workers_end_with_a_server_that_is_killed() -> None:
    program = f"""
import asyncio
from adapters.images.decoding_workers import DecodingWorkers

async def main():
    pool = DecodingWorkers(2, decoder={decoders.NAME!r})
    await pool.start()
    looping = asyncio.create_task(pool.prepare(b"loop"))
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    await looping

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        first = fork_server(server.pid)
        members = [first, *children(first)]
        assert len(members) == 3
        server.kill()
    assert until(lambda: all(map(gone, members)))
