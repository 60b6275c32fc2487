"""How the published scripts call a teacher: a thread pool of default size, in waves, each awaited whole."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from annotator.teachers.base import Message

_WAVE = 500


def label_in_waves(url: str, model: str, prompts: Sequence[list[Message]]) -> None:
    """Ask for every prompt; replies are read and dropped."""
    with httpx.Client(timeout=120, trust_env=False) as http:

        def ask(messages: list[Message]) -> str:
            answer = http.post(f"{url}/v1/chat/completions", json={"model": model, "messages": messages})
            return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])

        for start in range(0, len(prompts), _WAVE):
            with ThreadPoolExecutor() as pool:
                list(pool.map(ask, prompts[start : start + _WAVE]))
