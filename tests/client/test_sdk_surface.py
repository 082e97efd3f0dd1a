"""The SDK's face: what it exports, and that both clients are one surface."""

import ast
import importlib
import inspect
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import tectum
from tectum import surface, v1, vocabulary
from tectum.v1 import call_pb2, reconstruct_pb2, tensor_pb2


def public(owner: type) -> dict[str, Any]:
    members = inspect.getmembers(owner, callable)
    return {name: member for name, member in members if not name.startswith("_")}


def parameters(method: Any, *, annotated: bool = True) -> Any:
    signature = inspect.signature(method)
    if annotated:
        return signature
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


def test_both_clients_have_the_same_methods_with_the_same_signatures() -> None:
    sync, parallel = public(tectum.Client), public(tectum.AsyncClient)

    assert sync.keys() == parallel.keys()
    for name, method in sync.items():
        # An async client's streams also take async iterables of frames.
        annotated = name != "stream"
        assert parameters(method, annotated=annotated) == parameters(
            parallel[name], annotated=annotated
        ), name
    assert inspect.signature(tectum.Client) == inspect.signature(tectum.AsyncClient)


def test_both_streams_have_the_same_methods_with_the_same_signatures() -> None:
    sync, parallel = public(tectum.Stream), public(tectum.AsyncStream)

    assert sync.keys() == parallel.keys() == {"send", "finish", "close"}
    for name, method in sync.items():
        assert inspect.signature(method) == inspect.signature(parallel[name])
    for name in ("ready", "dropped", "unread", "lost", "clock_offset"):
        assert isinstance(getattr(tectum.Stream, name), property)
        assert isinstance(getattr(tectum.AsyncStream, name), property)


def test_everything_a_worker_can_be_asked_is_a_documented_method_of_both() -> None:
    asked = {
        name: function
        for name, function in inspect.getmembers(surface, inspect.isfunction)
        if function.__module__ == surface.__name__ and not name.startswith("_")
    }

    for name, function in asked.items():
        method = getattr(tectum.Client, name)
        assert method.__doc__ == function.__doc__
        assert method.__doc__
        assert list(inspect.signature(method).parameters) == [
            "self",
            *inspect.signature(function).parameters,
        ]
        assert inspect.iscoroutinefunction(getattr(tectum.AsyncClient, name))
    others = public(tectum.Client).keys() - asked.keys()
    assert others == {"stream", "wait_until_ready", "close"}


def test_a_method_says_it_returns_the_answer_itself() -> None:
    assert inspect.signature(tectum.Client.embed_images).return_annotation is tectum.EmbeddingBatch


def declared() -> dict[str, str]:
    """Each name that type checkers see in the package, and the module that it is of."""
    nodes = ast.walk(ast.parse(Path(tectum.__file__).read_text()))
    return {
        alias.name: str(node.module)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tectum.")
        for alias in node.names
    }


def test_all_is_what_type_checkers_see_and_every_name_is_documented() -> None:
    assert set(tectum.__all__) == declared().keys()
    assert tectum.__all__ == sorted(tectum.__all__)
    for name in tectum.__all__:
        assert getattr(tectum, name).__doc__, name


def test_what_type_checkers_see_is_what_there_is() -> None:
    for name, module in declared().items():
        assert getattr(tectum, name) is getattr(importlib.import_module(module), name), name
    assert set(tectum.__all__) <= set(dir(tectum))


def test_a_name_that_is_not_there_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'tectum' has no attribute 'Cleint'"):
        getattr(tectum, "Cleint")  # noqa: B009


@pytest.mark.parametrize("words", vocabulary.WIRE, ids=lambda words: words.__name__)
def test_an_enum_has_every_word_of_the_contracts(words: type[Enum]) -> None:
    contract = vocabulary.numbers(vocabulary.WIRE[words])
    ours = {member.name.lower() for member in words} - {"unknown"}

    assert ours == set(contract)
    for name, number in contract.items():
        assert vocabulary.spoken(words, number).name.lower() == name


def test_a_word_this_sdk_has_not_learnt_is_unknown() -> None:
    assert vocabulary.spoken(tectum.Capability, 99) is tectum.Capability.UNKNOWN


def test_the_names_a_caller_may_write_are_the_contracts() -> None:
    kinds = vocabulary.numbers(call_pb2.VectorKind.DESCRIPTOR)
    types = vocabulary.numbers(tensor_pb2.DataType.DESCRIPTOR)
    masks = vocabulary.numbers(reconstruct_pb2.MaskKind.DESCRIPTOR)
    sources = vocabulary.numbers(reconstruct_pb2.ImportanceSource.DESCRIPTOR)

    assert set(vocabulary.VectorKindName.__args__) == set(kinds) - {"latent_action", "world_latent"}  # type: ignore[attr-defined]
    assert set(vocabulary.VectorTypeName.__args__) <= set(types)  # type: ignore[attr-defined]
    assert set(vocabulary.MaskKindName.__args__) == set(masks)  # type: ignore[attr-defined]
    assert set(vocabulary.ImportanceSourceName.__args__) == set(sources)  # type: ignore[attr-defined]


def imported(code: str) -> set[str]:
    """What a fresh interpreter has imported after some lines."""
    code += "; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_sdk_brings_in_nothing_heavy() -> None:
    rooms = {name.partition(".")[0] for name in imported("from tectum import Client")}

    assert {"tectum", "grpc", "numpy"} <= rooms
    assert rooms.isdisjoint({"torch", "PIL", "pydantic", "fastapi", "av", "tectum_core"})


def test_the_contract_alone_brings_in_neither_the_sdk_nor_grpc() -> None:
    messages = [path.stem for path in Path(v1.__path__[0]).glob("*_pb2.py")]

    found = imported("; ".join(f"import tectum.v1.{name}" for name in messages))

    ours = {name for name in found if name.startswith("tectum")}
    assert ours == {"tectum", "tectum.v1", *(f"tectum.v1.{name}" for name in messages)}
    assert found.isdisjoint({"grpc", "numpy"})
