"""How an `openai` client for a teacher's endpoint is set up, whichever of its APIs is spoken."""

import ssl
from functools import cache
from typing import Any

import httpx2
import openai

from core.domain.annotation import TeacherConfig


def transport_options(config: TeacherConfig) -> dict[str, Any]:
    """For `openai.DefaultHttpxClient`, or its async twin."""
    # Redirects off: a key is bound to its host.
    return {"follow_redirects": False, "timeout": _timeout(config), "verify": _certificates()}


def client_options(config: TeacherConfig) -> dict[str, Any]:
    """For `openai.OpenAI`, or its async twin. Retries are our own, so the client has none."""
    return {
        "base_url": config.base_url,
        "api_key": config.api_key or "none",  # local servers want no key, the client insists on one
        "max_retries": 0,
        "timeout": _timeout(config),
    }


def _timeout(config: TeacherConfig) -> openai.Timeout:
    return openai.Timeout(config.read_timeout, connect=config.connect_timeout)


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust: read once a process, because that takes longer than a look at a batch."""
    return httpx2.create_ssl_context()
