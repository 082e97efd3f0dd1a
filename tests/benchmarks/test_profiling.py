"""Which of our modules a process spends its time in."""

from profiling import OTHERS, modules

LOOP = (
    "MainThread;<module> (/a/tectum_server/worker/front/process.py:90);_run (asyncio/events.py:8)"
)
CALLS = f"{LOOP};unary (/a/tectum_server/worker/front/calls.py:7)"


def test_a_sample_is_the_innermost_of_our_modules() -> None:
    stacks = f"{CALLS};_raw (/a/tectum_server/worker/front/images.py:3) 5\n{CALLS} 2\n"

    assert modules(stacks) == {"front/images": 5, "front/calls": 2}


def test_what_a_library_does_for_a_line_is_that_lines() -> None:
    stacks = f"{CALLS};_wait (asyncio/tasks.py:5);labels (prometheus_client/metrics.py:4) 3\n"

    assert modules(stacks) == {"front/calls": 3}


def test_lines_of_one_module_are_one() -> None:
    other = CALLS.replace(":7)", ":9)")

    assert modules(f"{CALLS} 2\n{other} 3\n") == {"front/calls": 5}


def test_other_rooms_have_their_packages_name() -> None:
    thread = "compute_0;run_batch (/a/tectum_server/worker/engine/computing/operations.py:4)"
    core = f"{thread};forward (/a/tectum_core/model/vision.py:9)"

    assert modules(f"{core};linear (torch/nn/functional.py:5) 4\n") == {
        "tectum_core/model/vision": 4
    }


def test_what_has_no_frame_of_ours_but_the_entry_is_others() -> None:
    assert modules(f"{LOOP} 4\nMainThread;_run_once (asyncio/base_events.py:4) 1\n") == {OTHERS: 5}


def test_who_waits_spends_nothing() -> None:
    stacks = "\n".join(
        f"{CALLS};{frame} 9"
        for frame in (
            "EpollSelector.select (selectors.py:468)",
            "Condition.wait (threading.py:320)",
            "_wait (/a/tectum_server/lifeline.py:9)",
            "Thread.run (threading.py:982)",
            "_worker (concurrent/futures/thread.py:81)",
        )
    )

    assert not modules(stacks)
