"""What holds for every problem a gateway answers with."""

from typing import Any

import httpx


def checked(response: httpx.Response, status: int) -> Any:
    """The problem in an answer, after what holds for every one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["status"] == status
    assert found["request_id"] == response.headers["x-request-id"]
    assert found["instance"] == response.request.url.path
    assert found["title"]
    assert found["detail"]
    assert ("retry-after" in response.headers) == ("retry_after_ms" in found)
    return found
