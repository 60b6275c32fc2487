"""Where an example's characters stand in the text that is tokenised: as they are, or inside a chat template."""

from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from core.domain.annotation import Example
from core.domain.spans import Span
from core.errors import InvalidInput

# Stand for input and target to see what a template puts around them. Of the private use area: no text's own.
_INPUT, _TARGET = "\ue000\ue001", "\ue002\ue003"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch [start, end) of an example's text that stands `shift` code points later in the tokenised text."""

    start: int
    end: int
    shift: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The text to tokenise. Offsets are code points of `text`."""

    text: str
    target_start: int
    target_end: int
    pieces: tuple[Piece, ...]
    is_chat: bool  # the template writes its own special tokens

    def place(self, span: Span) -> list[tuple[int, int]]:
        """Where `span` of the example's text stands, without white space at its ends; empty where nothing is left."""
        placed = []
        for piece in self.pieces:
            start, end = max(span.start, piece.start) + piece.shift, min(span.end, piece.end) + piece.shift
            words = self.text[start:end]
            start, end = start + len(words) - len(words.lstrip()), end - len(words) + len(words.rstrip())
            if start < end:
                placed.append((start, end))
        return placed


def layout_of(example: Example, tokenizer: PreTrainedTokenizerBase, *, chat_template: bool) -> Layout:
    """The layout of `example`, in the tokenizer's chat template if asked for.

    Raises
    ------
    InvalidInput
        The tokenizer has no chat template, or the template refuses or rewrites the text.
    """
    return _in_chat(example, tokenizer) if chat_template else _plain(example)


def _plain(example: Example) -> Layout:
    length = len(example.text)
    return Layout(example.text, len(example.input), length, (Piece(0, length, 0),), is_chat=False)


def _in_chat(example: Example, tokenizer: PreTrainedTokenizerBase) -> Layout:
    if not tokenizer.chat_template:
        raise InvalidInput(
            "chat_template was asked for, but this base model's tokenizer has none", field="config.chat_template"
        )
    before, _, rest = _render(tokenizer, _INPUT, _TARGET).partition(_INPUT)
    between, _, after = rest.partition(_TARGET)
    text = _render(tokenizer, example.input, example.target)
    source, target = _turns(text.removeprefix(before).removesuffix(after), between, example)
    source_start, target_start = len(before), len(before) + len(source) + len(between)
    if text != before + source + between + target + after:
        raise _rewritten(example)
    in_input = example.input.index(source)
    in_target = len(example.input) + example.target.index(target)
    pieces = (
        Piece(in_input, in_input + len(source), source_start - in_input),
        Piece(in_target, in_target + len(target), target_start - in_target),
    )
    return Layout(text, target_start, target_start + len(target), pieces, is_chat=True)


def _render(tokenizer: PreTrainedTokenizerBase, source: str, target: str) -> str:
    turns = [{"role": "user", "content": source}, {"role": "assistant", "content": target}]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False))
    except TemplateError as exc:
        raise InvalidInput("the chat template refuses a user turn and an answer", field="config.chat_template") from exc


def _turns(text: str, between: str, example: Example) -> tuple[str, str]:
    """What a template left of input and target, which it may have trimmed, in `text` = input + between + target."""
    at = text.find(between)
    while at >= 0:
        source, target = text[:at], text[at + len(between) :]
        if source.strip() == example.input.strip() and target.strip() == example.target.strip():
            return source, target
        at = text.find(between, at + 1)
    raise _rewritten(example)


def _rewritten(example: Example) -> InvalidInput:
    return InvalidInput("the chat template rewrites this example's text", example=example.id)
