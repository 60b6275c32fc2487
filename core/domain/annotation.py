"""Examples, the human prior, and what a teacher said about an example."""

from dataclasses import dataclass, field
from enum import StrEnum

from core.domain.relations import Relation
from core.domain.spans import Grounding, Span


@dataclass(frozen=True, slots=True)
class Example:
    """One item of task data. Relations are spans of `text`; `choices` are the targets to compare at evaluation."""

    input: str
    target: str
    id: str = ""
    choices: tuple[str, ...] = ()
    relations: tuple[Relation, ...] = ()

    @property
    def text(self) -> str:
        """The one text that spans index: input and target with nothing between."""
        return self.input + self.target


@dataclass(frozen=True, slots=True)
class Quote:
    """A phrase as somebody wrote it, and the numbered segment of the text they say it stands in (1-based)."""

    quote: str
    segment: int | None = None


@dataclass(frozen=True, slots=True)
class QuotedRelation:
    """A relation in words, not yet located in a text."""

    effect: Quote
    causes: tuple[Quote, ...]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One handwritten example of a prior."""

    input: str
    target: str
    relations: tuple[QuotedRelation, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A labelling function: regular expressions for the causes; effect None means the whole target."""

    causes: tuple[str, ...]
    effect: str | None = None


@dataclass(frozen=True, slots=True)
class Prior:
    """What a person knows about a task: instructions, demonstrations and, optionally, rules."""

    name: str
    version: str
    instructions: str
    demonstrations: tuple[Demonstration, ...] = ()
    rules: tuple[Rule, ...] = ()


class Reason(StrEnum):
    """Why a phrase, or an edge, of a reply could not become a relation."""

    NOT_FOUND = "not_found"
    NOT_BEFORE_EFFECT = "not_before_effect"
    AMBIGUOUS = "ambiguous"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Phrase:
    """A quote that was located: where, how, and among how many candidates."""

    span: Span
    quote: str
    grounding: Grounding
    candidates: int = 1
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class GroundedRelation:
    """A relation whose every phrase was located, with how each was found."""

    effect: Phrase
    causes: tuple[Phrase, ...]

    @property
    def relation(self) -> Relation:
        """The spans alone."""
        return Relation(self.effect.span, tuple(cause.span for cause in self.causes))


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An edge, one (effect, cause) pair as written, that could not be grounded."""

    effect: str
    cause: str  # empty where the relation named none
    reason: Reason
    effect_at_fault: bool = False  # the reason is about the effect's phrase, not the cause's


class Outcome(StrEnum):
    """What became of one item. The counts of a job's outcomes add up to its items."""

    LABELLED = "labelled"  # at least one relation was grounded
    EMPTY = "empty"  # a readable reply without a single groundable relation
    UNREADABLE = "unreadable"  # not the JSON that was asked for
    REFUSED = "refused"  # the teacher declined
    TRUNCATED = "truncated"  # the reply hit the length limit
    FILTERED = "filtered"  # the endpoint's content filter cut it
    FAILED = "failed"  # the call failed for this item and will not be tried again


class Decision(StrEnum):
    """What a human did with the relations that a teacher found."""

    ACCEPTED = "accepted"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens a reply cost, as the endpoint counted them (0 when it did not)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Annotation:
    """All that is known about one labelled item; `raw_reply` and `prompt_hash` make it reproducible."""

    outcome: Outcome
    relations: tuple[GroundedRelation, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()
    raw_reply: str = ""
    usage: Usage = field(default_factory=Usage)
    prompt_hash: str = ""
    detail: str = ""  # for outcomes other than labelled: one sentence on what went wrong


class Mode(StrEnum):
    """How a job asks its teacher."""

    LIVE = "live"  # one call an item, answered within seconds
    BATCH = "batch"  # files of thousands of questions, answered within a day, for less


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """All the annotator needs to reach a teacher. Built from settings at an entry point, never from a request."""

    name: str
    kind: str  # "rule" or "openai"
    base_url: str = ""
    model: str = ""
    api_key: str = field(default="", repr=False)
    temperature: float = 0.0
    max_tokens: int = 2048  # of a reply
    concurrency: int = 16  # calls in flight
    connect_timeout: float = 5.0  # seconds
    read_timeout: float = 90.0  # seconds
    max_attempts: int = 6  # calls per item before it counts as unreachable
    deadline: float = 300.0  # seconds per item, retries included
    requests_per_minute: float = 0.0  # to one endpoint; 0: as many as it takes
    tokens_per_minute: float = 0.0  # prompts and replies together; 0: as many as it takes
    prompt_price: float = 0.0  # USD for a million tokens
    completion_price: float = 0.0  # USD for a million tokens
    batch_discount: float = 0.5  # of both prices, for questions in a batch
    batch_lines: int = 50_000  # questions in a batch
    batch_bytes: int = 200_000_000  # of the file that holds them
