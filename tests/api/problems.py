"""What every problem must look like."""

from typing import Any


def assert_problem(answer: Any, status: int, code: str, field: str | None, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:causeway:problem:{code}"
    assert (problem["status"], problem["code"], problem.get("field")) == (status, code, field)
    assert problem["title"]
    assert words in problem["detail"]
