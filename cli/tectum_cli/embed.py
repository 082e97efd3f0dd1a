"""`tectum embed`: vectors of pictures and videos into a parquet file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tectum_cli.extras import errors, fail, needs, told
from tectum_cli.media import Content, Picture, Unreadable, pictures_in
from tectum_cli.patience import Patience
from tectum_cli.reaching import ADDRESS, Address, ByTls, Roots, Token, tls_by
from tectum_cli.signals import ending_as_interrupts

if TYPE_CHECKING:
    from tectum import Client, EmbeddingBatch

__all__ = ["embed"]

_WORKING = "embedding"
_NAMED = 3
"""Of the skipped files and of the failed rows, so many by name."""
_OF_PICTURES = re.compile(r"images(\[|$)")
_MOST_BYTES = 32 * 2**20
"""Of pictures in one request: half of what a worker takes unless its operator said otherwise."""


@dataclass
class _Failed:
    """The rows without a vector, of which this keeps a few: the file has all."""

    count: int = 0
    first: list[dict[str, object]] = field(default_factory=list)

    def note(self, rows: list[dict[str, object]]) -> None:
        """Count those that failed among some rows."""
        failed = [row for row in rows if row["error"] is not None]
        self.count += len(failed)
        self.first += failed[: _NAMED - len(self.first)]

    def tell(self) -> None:
        """Why rows have no vector: a few of them tell what is wrong with the others."""
        for row in self.first:
            frame = "" if row["frame"] is None else f", frame {row['frame']}"
            told = f"not embedded: {row['path']}{frame}: {row['error']}"
            errors.print(escape(told), highlight=False, soft_wrap=True)
        if more := self.count - len(self.first):
            errors.print(f"and {more} more; the column error says why", highlight=False)


def embed(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Pictures, videos, or folders of them.", metavar="PATH"),
    ],
    out: Annotated[Path, typer.Option(help="The file to write, NAME.parquet.", metavar="FILE")],
    worker: Address = ADDRESS,
    token: Token = "",
    by_tls: ByTls = False,
    roots: Roots = None,
    model: Annotated[
        str, typer.Option(help="Model; empty: the worker's default.", metavar="NAME")
    ] = "",
    kind: Annotated[
        str,
        typer.Option(help="joint or pooled; empty: joint if the model has it.", metavar="KIND"),
    ] = "",
    every: Annotated[
        int, typer.Option(help="Of a video, take every n-th frame.", min=1, metavar="COUNT")
    ] = 1,
    batch: Annotated[
        int,
        typer.Option(
            help="Pictures in one request; fewer of large ones.", min=1, max=64, metavar="COUNT"
        ),
    ] = 32,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file to write if it is there.")
    ] = False,
    patience: Annotated[
        float,
        typer.Option(
            help="Seconds to wait for a worker that is busy or away.", min=0.0, metavar="SECONDS"
        ),
    ] = 300.0,
) -> None:
    """Write the vectors of pictures and videos to a parquet file.

    One row each, with path, frame, vector, space, and why there is none where one failed. Calls
    have BULK priority, so robots go first. What ends it too early leaves the rows so far in a file
    of their own, OUT.part. Exits 1 if nothing could be embedded.
    """
    with needs("cli"):
        import pyarrow as pa
        import pyarrow.parquet as pq
        from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
    from tectum import Client

    if kind not in ("", "joint", "pooled"):
        raise fail(f"--kind is joint or pooled, not {kind!r}")
    _check(out, force)
    fields: dict[str, pa.DataType] = {
        "path": pa.string(),
        "frame": pa.int64(),
        "seconds": pa.float64(),
        "vector": pa.list_(pa.float32()),
        "space_id": pa.string(),
        "model": pa.string(),
        "version": pa.string(),
        "error": pa.string(),
    }
    schema = pa.schema(fields)
    failed = _Failed()
    skipped: list[Path] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    with ending_as_interrupts() as heed, _drafted(out, force) as draft:
        try:
            with (
                told(),
                Client(
                    worker, token=token or None, model=model, tls=tls_by(by_tls, roots)
                ) as client,
                pq.ParquetWriter(draft, schema) as writer,
                Progress(*columns, console=errors, disable=not errors.is_terminal) as progress,
            ):
                task = progress.add_task(_WORKING, total=None)

                def tell(why: str) -> None:
                    waiting = f"waiting for the worker: {escape(why)}"
                    progress.update(task, description=waiting if why else _WORKING)
                    if why and not errors.is_terminal:
                        errors.print(waiting, highlight=False, soft_wrap=True)

                asked = partial(_asked, client, Patience(patience, tell, heed), kind)
                for group in _groups(pictures_in(paths, every, skipped), batch):
                    rows = _rows(asked, group)
                    failed.note(rows)
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    progress.advance(task, len(group))
                done = int(progress.tasks[0].completed)
        except (ValueError, OSError) as error:
            raise fail(str(error)) from error
        if not done:
            raise fail(f"no pictures or videos in {', '.join(map(str, paths))}")
    # What it writes itself may lie in a folder that it reads, and is none of its files.
    own, home = {draft.name, out.name}, out.parent.resolve()
    if foreign := [f for f in skipped if f.name not in own or f.parent.resolve() != home]:
        _tell_skipped(foreign)
    failed.tell()
    wrong = f", {failed.count} with an error" if failed.count else ""
    errors.print(
        f"{done - failed.count} embedded{wrong}: {done} rows in {escape(str(out))}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if failed.count == done:
        raise typer.Exit(1)


def _check(out: Path, force: bool) -> None:
    """Let pass a file that may be written: before hours of work, and after them."""
    if out.suffix != ".parquet":
        raise fail(f"--out is a .parquet file, not {str(out)!r}")
    if not out.parent.is_dir():
        raise fail(f"the folder {out.parent} of --out does not exist")
    if out.exists() and not force:
        raise fail(f"{out} exists; --force replaces it")


def _tell_skipped(files: list[Path]) -> None:
    """What in the folders had no place in the answer: a few names tell the kind."""
    what = "1 file that is no picture" if len(files) == 1 else f"{len(files)} files, no pictures"
    names = ", ".join(file.name for file in files[:_NAMED])
    more = ", …" if len(files) > _NAMED else ""
    errors.print(f"skipped {what}: {escape(names)}{more}", highlight=False, soft_wrap=True)


@contextmanager
def _drafted(out: Path, force: bool) -> Iterator[Path]:
    """A file to write, nobody else's, which becomes `out` once it is whole.

    What is left of one that is not, in a file beside `out`: hours of work may be in it.
    """
    draft = out.with_name(f".{out.name}.writing")
    try:
        draft.open("xb").close()
    except FileExistsError as error:
        raise fail(
            f"{draft} exists, so another run writes {out.name}; remove it if none does"
        ) from error
    except OSError as error:
        raise fail(str(error)) from error
    try:
        yield draft
        _check(out, force)  # meanwhile another run may have ended
    except BaseException:
        _keep(draft, out)
        raise
    draft.replace(out)


def _keep(draft: Path, out: Path) -> None:
    """Leave a draft's rows where they are found, if it has any, and say so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        count = pq.read_metadata(draft).num_rows
    except (OSError, pa.ArrowInvalid):  # it was never begun, or cannot be ended: a full disk
        count = 0
    if not count:
        draft.unlink(missing_ok=True)
        return
    names = (out.with_name(f"{out.name}.part{number or ''}") for number in itertools.count())
    kept = next(name for name in names if not name.exists())
    draft.replace(kept)
    errors.print(f"the {count} rows so far are in {kept}", highlight=False, soft_wrap=True)


def _groups(
    pictures: Iterator[Picture | Unreadable], size: int
) -> Iterator[list[Picture | Unreadable]]:
    """At most `size` pictures each, and no more bytes than `_MOST_BYTES` unless one alone has."""
    group: list[Picture | Unreadable] = []
    held = 0
    for one in pictures:
        bytes_of = one.size if isinstance(one, Picture) else 0
        if group and (len(group) == size or held + bytes_of > _MOST_BYTES):
            yield group
            group, held = [], 0
        group.append(one)
        held += bytes_of
    if group:
        yield group


def _asked(
    client: Client, patience: Patience, kind: str, contents: list[Content]
) -> EmbeddingBatch:
    """The worker's answer for some pictures, however long that takes."""
    from tectum import Priority

    def ask() -> EmbeddingBatch:
        return client.embed_images(
            contents,
            kind=kind or None,  # type: ignore[arg-type]
            priority=Priority.BULK,
            retries=0,
        )

    return patience.wait_for(ask)


def _rows(
    asked: Callable[[list[Content]], EmbeddingBatch], group: list[Picture | Unreadable]
) -> list[dict[str, object]]:
    """A row for each of a group, in its order."""
    from tectum import InvalidInput, TooLarge

    sent = [one for one in group if isinstance(one, Picture)]
    if not sent:
        return [_unread(one) for one in group if isinstance(one, Unreadable)]
    try:
        answer = asked([one.content for one in sent])
    # A call fails where all its pictures are bad, or too many or too much for it together: then
    # each half is asked alone, so that in the end none costs another its vector.
    except (InvalidInput, TooLarge) as error:
        if not all(_OF_PICTURES.match(violation.field) for violation in error.violations):
            raise
        if len(group) > 1:
            half = len(group) // 2
            return _rows(asked, group[:half]) + _rows(asked, group[half:])
        why = f"{error.reason or 'MESSAGE_TOO_LARGE'}: {error}"
        return [_failed(sent[0].path, sent[0].frame, why)]
    items = iter(answer)
    return [
        _row(one, next(items), answer.info) if isinstance(one, Picture) else _unread(one)
        for one in group
    ]


def _unread(broken: Unreadable) -> dict[str, object]:
    return _failed(broken.path, broken.frame, f"UNREADABLE: {broken.why}")


def _failed(path: Path, frame: int | None, why: str) -> dict[str, object]:
    return {
        **dict.fromkeys(("seconds", "vector", "space_id", "model", "version")),
        "path": str(path),
        "frame": frame,
        "error": why,
    }


def _row(picture: Picture, item: Any, info: Any) -> dict[str, object]:
    from tectum import Embedding

    row: dict[str, object] = {
        "path": str(picture.path),
        "frame": picture.frame,
        "seconds": picture.seconds,
        "vector": None,
        "space_id": None,
        "model": info.model,
        "version": info.version,
        "error": None,
    }
    if isinstance(item, Embedding):
        vector = item.as_float32()
        if vector.ndim != 1:
            raise ValueError("this model has vectors of patches only, none of a picture")
        row |= {"vector": vector.tolist(), "space_id": item.space_id}
    else:
        row["error"] = f"{item.reason}: {item.message}"
    return row
