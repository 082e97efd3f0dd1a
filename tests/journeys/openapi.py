"""A gateway's own documentation, and whether its answers are what that says."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from jsonschema import Draft202012Validator

JSON = "application/json"


@dataclass(frozen=True, eq=False)
class Operation:
    """One route and method."""

    method: str
    path: str
    described: dict[str, Any]

    @property
    def statuses(self) -> set[int]:
        """What it says that it may answer with."""
        return {int(status) for status in self.described["responses"]}

    @property
    def examples(self) -> dict[str, dict[str, Any]]:
        """Its bodies as JSON, by name."""
        content = self.described.get("requestBody", {}).get("content", {})
        found: dict[str, dict[str, Any]] = content.get(JSON, {}).get("examples", {})
        return found

    @property
    def body(self) -> Any:
        """The first of them; None where there is nothing to send."""
        return next((example["value"] for example in self.examples.values()), None)

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


class Documentation:
    """What `/openapi.json` says.

    Args:
        document: as served.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths = document["paths"]
        # Then an answer may not hold more than is documented either.
        self._components = copy.deepcopy(document["components"])
        for schema in self._components["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)

    @classmethod
    def of(cls, http: httpx.Client) -> Documentation:
        """A live gateway's."""
        return cls(http.get("/openapi.json").raise_for_status().json())

    def operations(self) -> Iterator[Operation]:
        """Every one."""
        for path, operations in self._paths.items():
            for method, described in operations.items():
                yield Operation(method, path, described)

    def wrong_with(self, operation: Operation, response: httpx.Response) -> list[str]:
        """How an answer differs from what the operation says of it; empty: it does not."""
        answers = operation.described["responses"]
        if str(response.status_code) not in answers:
            return [f"{response.status_code} is not documented: {response.text[:300]}"]
        content = answers[str(response.status_code)]["content"]
        media_type = response.headers["content-type"].partition(";")[0]
        if media_type not in content:
            return [f"{media_type} is not documented, {', '.join(content)} is"]
        if "json" not in media_type:
            return []
        schema = {**content[media_type]["schema"], "components": self._components}
        errors = Draft202012Validator(schema).iter_errors(response.json())
        return [f"{error.json_path}: {error.message[:300]}" for error in errors]
