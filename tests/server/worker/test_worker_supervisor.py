"""What the supervisor hears of its children, whatever else they write."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker import supervisor
from tectum_server.worker.children import _next_line, hear
from tectum_server.worker.settings import WorkerSettings
from tectum_server.worker.supervisor import CannotServe, Supervisor

LIMIT = 8


async def child(program: str) -> asyncio.subprocess.Process:
    """A child that runs this."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )


async def says(supervisor: Supervisor, name: str, program: str) -> str:
    """Let a child say what it says to its end; gives why it could not go on."""
    process = await child(program)
    why = await asyncio.wait_for(supervisor._listen(name, process), 30)
    await process.wait()
    return why


async def heard(parts: list[bytes]) -> list[bytes]:
    """The lines of what comes in parts, to a reader that has room for 8 bytes a line."""
    reader, lines = asyncio.StreamReader(limit=LIMIT), list[bytes]()

    async def feed() -> None:
        for part in parts:
            reader.feed_data(part)
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    while line := await _next_line(reader):
        lines.append(line)
    await feeding
    return lines


@pytest.mark.parametrize("end", [b"\n", b""])
async def test_a_line_that_is_too_long_is_passed_over_with_a_warning(
    caplog: pytest.LogCaptureFixture, end: bytes
) -> None:
    process = await child(
        f"""import os; os.write(1, b'{{"models": ["arm"]}}\\n' + b'x' * 200_000 + {end!r})"""
    )

    assert await hear(process) == {"models": ["arm"]}
    assert await hear(process) == {}
    await process.wait()

    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.WARNING, "a child's line was too long")
    assert record.__dict__["bytes"] == 200_000 + len(end)
    assert record.__dict__["begins"] == "x" * 200


async def test_what_comes_after_it_is_heard() -> None:
    process = await child("""print('{"models": ["leg"]}' * 20_000 + '\\n{"models": ["arm"]}')""")

    assert await hear(process) == {"models": ["arm"]}
    assert await hear(process) == {}
    await process.wait()


@given(st.lists(st.integers(0, 3 * LIMIT)), st.integers(0, 3 * LIMIT), st.lists(st.integers(1, 20)))
def test_every_line_that_there_is_room_for_comes_whole_and_no_other(
    lengths: list[int], last: int, cuts: list[int]
) -> None:
    lines = [b"%c" % (97 + n % 26) * length + b"\n" for n, length in enumerate(lengths)]
    lines.append(b"z" * last)
    text, parts = b"".join(lines), []
    for cut in cuts:
        parts.append(text[:cut])
        text = text[cut:]

    found = asyncio.run(heard([*parts, text]))

    assert found == [line for line in lines if line and len(line.rstrip(b"\n")) <= LIMIT]


async def test_a_front_that_goes_on_writing_is_not_stopped_by_a_full_pipe() -> None:
    settings = WorkerSettings(repository="models", models=("arm",))
    found = Supervisor(settings, list[int]().append)
    much = """print('{"ready": true}'); print('a library has much to say\\n' * 50_000)"""

    why = await says(found, "front", much)

    assert (why, found._awaited) == ("", {"engine"})


async def stopped_after(
    seconds: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, front: str
) -> Supervisor:
    """A supervisor that ran for so long, whose front runs this."""

    async def spawn(module: str, *_: object) -> asyncio.subprocess.Process:
        return await child(front if "front" in module else "import time; time.sleep(60)")

    monkeypatch.setattr(supervisor, "spawn", spawn)
    settings = WorkerSettings(
        repository=str(tmp_path), models=("arm",), port=0, metrics_port=0, drain_timeout=1.0
    )
    found = Supervisor(settings, list[int]().append)
    asyncio.get_running_loop().call_later(seconds, found.stop)
    await asyncio.wait_for(found.run(), 30)
    return found


@pytest.mark.parametrize("seconds", [0.0, 0.3])
async def test_a_worker_that_is_stopped_as_it_starts_ends_well(
    seconds: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    silent = "import time; time.sleep(60)"  # SIGTERM ends it, before it listens to that
    before = dict(os.environ)

    found = await stopped_after(seconds, monkeypatch, tmp_path, silent)

    assert found._living == {}
    assert dict(os.environ) == before  # what others begin later is none of this worker's


@pytest.mark.parametrize(
    ("code", "words"),
    [(5, "calls in flight were not finished"), (11, "a front ended with code 11 as it drained")],
)
async def test_how_a_front_ends_is_told_as_it_was(
    code: int, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = f"""
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))
print('{{"port": 7}}', flush=True)
time.sleep(60)"""

    with pytest.raises(CannotServe, match=words):
        await stopped_after(3.0, monkeypatch, tmp_path, program)


async def test_an_engine_begins_with_what_the_others_serve_or_else_with_what_it_did() -> None:
    settings = WorkerSettings(repository="models", models=("arm",), engines=3)
    found, socket = Supervisor(settings, list[int]().append), Path("socket")
    begun = [found._tell_engine(0, socket)]
    for name, told in (("engine-0", "arm@1"), ("engine-1", "arm@2"), ("engine-2", "arm@2")):
        await says(found, name, f"""print('{{"models": ["{told}"]}}')""")

    begun.append(found._tell_engine(0, socket))
    found._living["engine-2"] = await child("")
    begun.append(found._tell_engine(0, socket))
    await found._living["engine-2"].wait()

    assert [(told["models"], told["asked"]) for told in begun] == [
        (("arm",), None),
        (("arm@1",), ("arm",)),
        (("arm@2",), ("arm",)),
    ]


async def test_a_system_that_has_no_process_to_give_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tries = list[str]()

    async def spawn(module: str, *_: object) -> asyncio.subprocess.Process:
        tries.append(module)
        if len(tries) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await child("""print('{"port": 7}'); print('{"ready": true}')""")

    monkeypatch.setattr(supervisor, "spawn", spawn)
    monkeypatch.setattr(supervisor, "_RESTART_SECONDS", (0.0,))
    found = Supervisor(WorkerSettings(repository="x", models=("a",)), list[int]().append)
    found._begun.set()
    (front,), _ = found._children(tmp_path)
    keeping = asyncio.create_task(found._keep(front, tmp_path))
    while len(tries) < 4:
        await asyncio.sleep(0.01)
    found.stop()

    await asyncio.wait_for(keeping, 30)
    assert len(tries) >= 4


async def test_the_operator_is_told_once_when_all_serve() -> None:
    settings = WorkerSettings(repository="models", models=("arm",), fronts=2, engines=2)
    ready = list[int]()
    found = Supervisor(settings, ready.append)
    children = {
        "front-0": """print('{"port": 7}\\n{"ready": true}')""",
        "front-1": """print('{"port": 7}\\n{"ready": true}')""",
        "engine-1": """print('{"models": ["arm"]}')""",
    }

    for name, program in children.items():
        await says(found, name, program)
    before = list(ready)
    for _ in range(2):
        await says(found, "engine-0", """print('{"models": ["arm"]}')""")

    assert (before, ready) == ([], [7])
