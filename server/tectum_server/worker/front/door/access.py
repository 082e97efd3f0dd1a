"""Who may call: bearer tokens from a file, of which only hashes are kept.

    {"tokens": [{"name": "arm-7", "sha256": "<hex of the token's SHA-256>", "roles": ["infer"]}]}

Roles: `infer` for PerceptionService and reading models, `admin` for loading and
unloading too. Without a file everybody may infer and nobody is an admin.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tectum.v1 import errors_pb2
from tectum_server.worker.failure import Failure

__all__ = ["Access", "Role"]

Role = Literal["infer", "admin"]


class _Token(BaseModel):
    """One caller."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    roles: tuple[Role, ...]


class _TokenFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[_Token, ...]


class Access:
    """The rules.

    Args:
        file: the token file; None: no tokens.

    Raises:
        ValueError: the file is not as it should be.
    """

    def __init__(self, file: Path | None) -> None:
        self._tokens: tuple[_Token, ...] | None = None
        if file is not None:
            try:
                self._tokens = _TokenFile.model_validate_json(file.read_bytes()).tokens
            except ValidationError as error:
                raise ValueError(f"{file} is no token file: {error.errors()[0]['msg']}") from error

    def check(self, metadata: Iterable[tuple[str, str | bytes]], role: Role) -> None:
        """Let a call pass.

        Raises:
            Failure: CREDENTIALS_INVALID or PERMISSION_MISSING.
        """
        if self._tokens is None:
            if role == "admin":
                raise Failure(
                    errors_pb2.ERROR_REASON_PERMISSION_MISSING,
                    "this worker was started without tokens, so nobody may load or unload models",
                )
            return
        caller = self._caller(metadata, self._tokens)
        if caller is None:
            raise Failure(
                errors_pb2.ERROR_REASON_CREDENTIALS_INVALID,
                "send metadata `authorization: Bearer <token>` with a token this worker knows",
            )
        if role not in caller.roles:
            raise Failure(
                errors_pb2.ERROR_REASON_PERMISSION_MISSING,
                f"{caller.name} has the roles {list(caller.roles)}, this call needs {role!r}",
            )

    @staticmethod
    def _caller(
        metadata: Iterable[tuple[str, str | bytes]], tokens: tuple[_Token, ...]
    ) -> _Token | None:
        value = dict(metadata).get("authorization", "")
        scheme, _, secret = (value.decode() if isinstance(value, bytes) else value).partition(" ")
        if scheme.lower() != "bearer" or not secret:
            return None
        digest = hashlib.sha256(secret.strip().encode()).hexdigest()
        found = None
        for token in tokens:  # all of them, so that time tells nothing
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found
