"""A front before several engines: each job goes to the one that has least to do before it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from tests.server.worker.linked import IMAGE, HeldEngine, failure

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import (
    EmbedImages,
    Item,
    ItemFailure,
    Job,
    JobResult,
    ModelEntry,
    Priority,
    Renewal,
)
from tectum_server.worker.link.engines import Engines
from tectum_server.worker.outlook import Outlook, Price

CONTROL, INTERACTIVE, BULK = Priority.CONTROL, Priority.INTERACTIVE, Priority.BULK


class OneOfSeveral(HeldEngine):
    """An engine that can be away, be full, or serve another version; knows what it was told."""

    def __init__(self, version: str = "v1") -> None:
        super().__init__()
        self.told: list[tuple[str, ...]] = []
        self.full: errors_pb2.ErrorReason.ValueType | None = None
        self.lacks: set[str] = set()
        self.faulty = False
        self.serves(version)

    def serves(self, version: str = "") -> None:
        """Announce `arm` in this version; without: it is away."""
        self.models = {"arm": ModelEntry("arm", version, "ready", True, b"")} if version else {}
        for listener in self.listeners:
            listener()

    async def submit(self, job: Job, renewal: Renewal | None = None) -> JobResult:
        if self.full is not None:
            self.told.append(("refused",))
            raise Failure(self.full, "full", retry_after=2.5)
        if not self.models:
            raise Failure(errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE, "away")
        result = await super().submit(job, renewal)
        fault = ItemFailure(errors_pb2.ERROR_REASON_INTERNAL, "a fault")
        outputs = (fault,) * len(job.items) if self.faulty else result.outputs
        return replace(result, outputs=outputs)

    async def load_model(self, name: str, version: str, make_default: bool) -> ModelEntry:
        self.told.append(("load", name, version))
        return await super().load_model(name, version or "v9", make_default)

    async def unload_model(self, name: str) -> None:
        self.told.append(("unload", name))
        if name in self.lacks:
            raise Failure(errors_pb2.ERROR_REASON_MODEL_NOT_FOUND, f"no {name}", "name")


def a_job(priority: Priority = INTERACTIVE, items: int = 1, version: str = "") -> Job:
    """A job of so many pictures."""
    deadline = asyncio.get_running_loop().time() + 60
    operation, content = EmbedImages("pooled"), (Item((IMAGE,)),) * items
    return Job("arm", operation, content, priority, deadline, version=version)


def begin(engines: Engines, *jobs: Job) -> list[asyncio.Task[JobResult]]:
    """Submit jobs, one after the other."""
    return [asyncio.ensure_future(engines.submit(job)) for job in jobs]


async def held_by(members: list[OneOfSeveral]) -> list[list[tuple[Priority, int]]]:
    """What each engine has: class and items of its jobs, in the order that they came."""
    await asyncio.sleep(0)
    found = []
    for member in members:
        jobs = [member.begun.get_nowait() for _ in range(member.begun.qsize())]
        found.append([(job.priority, len(job.items)) for job in jobs])
    return found


async def answered(members: list[OneOfSeveral], work: list[asyncio.Task[JobResult]]) -> None:
    """Let the engines answer."""
    for member in members:
        member.free.set()
    await asyncio.gather(*work)


async def test_each_job_goes_to_who_has_fewest_items_before_it() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    engines = Engines(members)

    work = begin(engines, a_job(items=5), *[a_job(items=1) for _ in range(4)])
    held = await held_by(members)

    assert sorted(held) == [[(INTERACTIVE, 1)] * 4, [(INTERACTIVE, 5)]]
    await answered(members, work)


async def test_what_it_overtakes_counts_only_where_nothing_else_tells_them_apart() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    engines = Engines(members)

    work = begin(engines, a_job(BULK, 6), a_job(CONTROL, 1))
    first = await held_by(members)
    work += begin(engines, a_job(CONTROL, 1), a_job(BULK, 1))
    second = await held_by(members)

    bulk = next(number for number, jobs in enumerate(first) if (BULK, 6) in jobs)
    assert first[1 - bulk] == [(CONTROL, 1)]  # of two that it need not wait for, the idle one
    assert second[bulk] == [(CONTROL, 1)]  # overtakes six
    assert second[1 - bulk] == [(BULK, 1)]
    await answered(members, work)


async def test_engines_that_are_alike_take_turns() -> None:
    members = [OneOfSeveral() for _ in range(3)]
    engines = Engines(members)
    for member in members:
        member.free.set()

    for _ in range(30):
        await engines.submit(a_job())

    assert [member.begun.qsize() for member in members] == [10, 10, 10]


async def test_what_is_done_or_withdrawn_counts_no_more() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    engines = Engines(members)
    work = begin(engines, a_job(items=3), a_job(items=3))
    await held_by(members)

    work[0].cancel()
    await asyncio.gather(work[0], return_exceptions=True)
    work += begin(engines, a_job(items=1), a_job(items=1))
    held = await held_by(members)

    assert sorted(map(len, held)) == [0, 2]
    await answered(members, work[1:])


async def test_a_job_goes_where_its_version_serves_however_busy_that_is() -> None:
    members = [OneOfSeveral("v1"), OneOfSeveral("v2")]
    engines = Engines(members)

    work = begin(engines, *[a_job(version="v2") for _ in range(3)])
    held = await held_by(members)

    assert [len(jobs) for jobs in held] == [0, 3]
    await answered(members, work)


@pytest.mark.parametrize(
    "reason",
    [errors_pb2.ERROR_REASON_QUEUE_FULL, errors_pb2.ERROR_REASON_DEADLINE_UNREACHABLE],
)
async def test_what_one_engine_has_no_room_for_another_may_have(
    reason: errors_pb2.ErrorReason.ValueType,
) -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    engines = Engines(members)
    members[0].full = reason
    members[1].free.set()

    results = [await engines.submit(a_job()) for _ in range(4)]

    np.testing.assert_array_equal(results[0].outputs[0].arrays[0], IMAGE)  # type: ignore[union-attr]
    assert members[1].begun.qsize() == 4


async def test_where_two_have_no_room_no_third_is_asked() -> None:
    members = [OneOfSeveral() for _ in range(3)]
    for member in members:
        member.full = errors_pb2.ERROR_REASON_QUEUE_FULL

    told = await failure(begin(Engines(members), a_job())[0])

    assert (told.reason, told.retry_after) == (errors_pb2.ERROR_REASON_QUEUE_FULL, 2.5)
    assert sum(len(member.told) for member in members) == 2


async def test_any_other_failure_is_the_jobs_own() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    for member in members:
        member.full = errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE  # it died under the job

    told = await failure(begin(Engines(members), a_job())[0])

    assert told.reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    assert sum(len(member.told) for member in members) == 1


async def test_an_engine_of_which_nothing_but_faults_come_is_tried_now_and_then() -> None:
    members, now = [OneOfSeveral() for _ in range(4)], 0.0
    engines = Engines(members, clock=lambda: now)
    for member in members:
        member.free.set()
    members[2].faulty = True

    for _ in range(100):  # ten seconds of jobs, one after the other
        await engines.submit(a_job(items=2))
        now += 0.1
    given = [member.begun.qsize() for member in members]
    members[2].faulty = False
    now += 1
    for _ in range(100):
        await engines.submit(a_job(items=2))
    again = [member.begun.qsize() - was for member, was in zip(members, given, strict=True)]

    assert given[2] <= 10  # once a second at most, though it always has least to do
    assert again == [25] * 4


async def test_one_fault_among_answers_casts_no_doubt() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    engines = Engines(members, clock=lambda: 0.0)
    for member in members:
        member.free.set()
        member.faulty = True

    for _ in range(10):  # all are in doubt, as all are where it is the pictures' fault
        await engines.submit(a_job())

    assert [member.begun.qsize() for member in members] == [5, 5]


async def test_an_engine_that_is_away_is_passed_over_and_all_of_them_are_an_error() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    engines = Engines(members)
    members[1].free.set()

    members[0].serves()
    for _ in range(3):
        await engines.submit(a_job())
    members[1].serves()
    told = await failure(begin(engines, a_job())[0])
    members[0].back_in, members[1].back_in = 7.0, 3.0

    assert members[1].begun.qsize() == 3
    assert engines.back_in == 3.0
    assert told.reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
    assert engines.models == {}


async def test_changes_of_any_engine_are_heard() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    engines, heard = Engines(members), list[Mapping[str, ModelEntry]]()

    def listen() -> None:
        heard.append(engines.models)

    engines.on_change(listen)
    members[0].serves("v2")
    members[1].serves("v2")
    engines.off_change(listen)
    members[1].serves("v3")

    assert [told["arm"].version for told in heard] == ["v1", "v2"]


async def test_a_model_is_loaded_in_one_engine_and_then_the_same_in_all_others() -> None:
    members = [OneOfSeveral() for _ in range(3)]
    watching = [OneOfSeveral() for _ in range(2)]

    entry = await Engines(members).load_model("leg", "", make_default=False)
    await Engines(watching, watched=True).load_model("leg", "", make_default=False)
    await Engines(members).unload_model("leg")

    assert entry.version == "v9"
    assert [member.told[0] for member in members] == [
        ("load", "leg", ""),
        ("load", "leg", "v9"),
        ("load", "leg", "v9"),
    ]
    assert [member.told for member in watching] == [[("load", "leg", "")]] * 2
    assert [member.told[1:] for member in members] == [[("unload", "leg")]] * 3


async def test_every_engine_expects_control_for_any_of_them_may_get_its_next_call() -> None:
    members = [OneOfSeveral() for _ in range(3)]

    Engines(members).expect_control()

    assert all(member.control_expected.is_set() for member in members)


async def test_a_model_is_unloaded_wherever_it_is_and_unknown_only_if_it_is_nowhere() -> None:
    members = [OneOfSeveral() for _ in range(3)]
    engines = Engines(members)
    members[0].lacks = members[2].lacks = {"leg"}

    await engines.unload_model("leg")
    members[1].lacks = {"leg"}
    with pytest.raises(Failure) as caught:
        await engines.unload_model("leg")

    assert [len(member.told) for member in members] == [2, 2, 2]
    assert caught.value.reason == errors_pb2.ERROR_REASON_MODEL_NOT_FOUND
    assert caught.value.message == "no leg"


async def test_what_the_first_rejects_no_other_is_told() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]

    with pytest.raises(Failure) as caught:
        await Engines(members).load_model("broken", "", make_default=False)

    assert caught.value.message == "no good"
    assert [len(member.told) for member in members] == [1, 0]


async def test_what_another_rejects_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [OneOfSeveral() for _ in range(3)]

    async def reject(name: str, version: str, make_default: bool) -> ModelEntry:
        raise Failure(errors_pb2.ERROR_REASON_BUNDLE_REJECTED, "out of memory", "name")

    monkeypatch.setattr(members[2], "load_model", reject)
    with pytest.raises(Failure) as caught:
        await Engines(members).load_model("leg", "", make_default=False)

    told = caught.value
    assert (told.reason, told.field) == (errors_pb2.ERROR_REASON_BUNDLE_REJECTED, "name")
    assert told.message == ("loaded in the first of 3 engines, but engine-2 says: out of memory")


async def test_nothing_is_changed_while_an_engine_is_away() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    engines = Engines(members)
    members[1].serves()
    members[1].back_in = 7.0

    for change in (engines.load_model("leg", "", make_default=False), engines.unload_model("arm")):
        with pytest.raises(Failure) as caught:
            await change
        assert caught.value.reason == errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE
        assert "1 of 2 engines" in caught.value.message
        assert caught.value.retry_delay == 7.0

    assert members[0].told == []


async def test_whoever_lacks_a_model_that_is_asked_back_is_asked() -> None:
    members = [OneOfSeveral(), OneOfSeveral()]
    engines = Engines(members)
    members[1].models = {"arm": ModelEntry("arm", "v1", "evicted", True, b"")}

    engines.want("arm")

    assert [member.asked_back.qsize() for member in members] == [0, 1]


async def test_what_all_engines_that_are_there_have_to_do_is_told() -> None:
    engines = [OneOfSeveral(), OneOfSeveral(), OneOfSeveral("")]
    price = Price("arm@v1", "embed_images", 1.0, 1.0, 1.0, 4)
    engines[1].outlook = Outlook(1.0, price, 0.1, (), ())

    assert list(Engines(engines).outlooks()) == [None, engines[1].outlook]
