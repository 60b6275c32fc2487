"""The protocols of teaching: a Teacher labels an example; a ChatEndpoint answers a prompt; a ReplyCache remembers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from core.domain.annotation import Annotation, Demonstration, Example, Usage

Message = dict[str, str]  # {"role", "content"}, as chat endpoints take it


class Finish(StrEnum):
    """How a reply ended."""

    COMPLETE = "complete"
    LENGTH = "length"  # cut at max_tokens
    FILTERED = "filtered"  # cut by the endpoint's content filter
    REFUSED = "refused"  # declined in a way the endpoint reports
    OVERSIZED = "oversized"  # longer than we are ready to read; the text is what was read
    INVALID = "invalid"  # the endpoint will not take this request (too long, malformed); the text says why


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one prompt. Nothing in `text` may be trusted, but any database and any file can hold it."""

    text: str
    usage: Usage = field(default_factory=Usage)
    finish: Finish = Finish.COMPLETE


class ChatEndpoint(Protocol):
    """A chat model that answers prompts, with retries, pacing and concurrency of its own."""

    @property
    def model(self) -> str:
        """The model's name at the endpoint."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All that shapes a reply besides the prompt: part of the cache key."""

    async def ask(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> Reply:
        """The reply to one prompt.

        Raises
        ------
        TeacherUnreachable
            When no attempt got an answer.
        TeacherRejected
            When no call of this kind will ever pass: wrong key, unknown model.
        """


class ReplyCache(Protocol):
    """Remembers replies by prompt hash, so that the same question is never paid twice."""

    async def get(self, prompt_hash: str) -> Reply | None:
        """The reply stored under this hash, if any."""

    async def put(self, prompt_hash: str, reply: Reply) -> None:
        """Store a reply. Storing under a known hash is harmless."""


class Purse(Protocol):
    """Pays for calls: what a call may cost at most is set aside before it, what it did cost is settled after it."""

    async def reserve(self, most: Usage) -> int:
        """Set aside what a call of at most so many tokens costs; a number to settle it by. Unsettled, it counts whole.

        Raises
        ------
        BudgetExhausted
            When that no longer fits: the call must not be made.
        """

    def settle(self, reservation: int, usage: Usage) -> None:
        """The call is over and was charged these tokens; zero for one that was not charged."""


class Teacher(Protocol):
    """Labels examples according to the prior it was opened with."""

    @property
    def name(self) -> str:
        """As named in settings."""

    async def label(
        self, example: Example, cache: ReplyCache | None = None, demonstrations: Sequence[Demonstration] = ()
    ) -> Annotation:
        """What this teacher says about one example, shown `demonstrations` after those of the prior.

        Raises TeacherUnreachable, TeacherRejected and BudgetExhausted only.
        """
