"""What the supervisor hears of its children, whatever else they write."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tectum_server.worker.children import _next_line, hear
from tectum_server.worker.settings import WorkerSettings
from tectum_server.worker.supervisor import Supervisor

LIMIT = 8


async def child(program: str) -> asyncio.subprocess.Process:
    """A child that runs this."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )


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
    supervisor = Supervisor(settings, list[int]().append)
    front = await child(
        """print('{"ready": true}'); print('a library has much to say\\n' * 50_000)"""
    )

    why = await asyncio.wait_for(supervisor._listen("front", front), 30)

    assert (why, await front.wait()) == ("", 0)


async def test_the_operator_is_told_once_when_all_serve() -> None:
    settings = WorkerSettings(repository="models", models=("arm",), fronts=2, engines=2)
    ready = list[int]()
    supervisor = Supervisor(settings, ready.append)
    children = {
        "front-0": """print('{"port": 7}\\n{"ready": true}')""",
        "front-1": """print('{"port": 7}\\n{"ready": true}')""",
        "engine-1": """print('{"models": ["arm"]}')""",
    }

    for name, program in children.items():
        await supervisor._listen(name, await child(program))
    before = list(ready)
    for _ in range(2):
        await supervisor._listen("engine-0", await child("""print('{"models": ["arm"]}')"""))

    assert (before, ready) == ([], [7])
