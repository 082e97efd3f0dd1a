"""The contract itself: committed stubs are what it gives, and it leaves nothing unsaid."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTO = Path(__file__).parents[2] / "proto"
FILES = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.glob("tectum/v1/*.proto"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    """Every file of the contract, compiled now."""
    well_known = Path(protoc.__file__).parent / "_proto"
    output = tmp_path_factory.mktemp("proto") / "set.binpb"
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTO}",
            f"--proto_path={well_known}",
            f"--descriptor_set_out={output}",
            "--include_source_info",
            *FILES,
        ]
    )
    assert status == 0
    return {file.name: file for file in FileDescriptorSet.FromString(output.read_bytes()).file}


@pytest.mark.parametrize("name", FILES)
def test_a_committed_stub_is_what_its_file_gives(
    compiled: dict[str, FileDescriptorProto], name: str
) -> None:
    module = importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
    fresh = FileDescriptorProto()
    fresh.CopyFrom(compiled[name])
    fresh.ClearField("source_code_info")
    for message in fresh.message_type:
        for field in message.field:
            field.ClearField("json_name")  # told only where descriptors are written out

    assert FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb) == fresh


def uncommented(file: FileDescriptorProto) -> Iterator[str]:
    """Messages, fields, oneofs, enums, their values, services and rpcs without a comment."""
    told = {
        tuple(location.path)
        for location in file.source_code_info.location
        if location.leading_comments
    }
    for m, message in enumerate(file.message_type):
        paths: dict[tuple[int, ...], str] = {(4, m): message.name}
        paths |= {(4, m, 2, f): f"{message.name}.{x.name}" for f, x in enumerate(message.field)}
        synthetic = {x.oneof_index for x in message.field if x.proto3_optional}
        paths |= {
            (4, m, 8, o): f"{message.name}.{x.name}"
            for o, x in enumerate(message.oneof_decl)
            if o not in synthetic
        }
        yield from (name for path, name in paths.items() if path not in told)
    for e, enum in enumerate(file.enum_type):
        paths = {(5, e): enum.name}
        paths |= {(5, e, 2, v): x.name for v, x in enumerate(enum.value)}
        yield from (name for path, name in paths.items() if path not in told)
    for s, service in enumerate(file.service):
        paths = {(6, s): service.name}
        paths |= {(6, s, 2, r): x.name for r, x in enumerate(service.method)}
        yield from (name for path, name in paths.items() if path not in told)


@pytest.mark.parametrize("name", FILES)
def test_nothing_in_the_contract_is_left_unsaid(
    compiled: dict[str, FileDescriptorProto], name: str
) -> None:
    assert list(uncommented(compiled[name])) == []
