"""From examples to token ids and supervised attention rows, through the fast tokenizer's offset mapping.

Policy, the same for every tokenizer:

- Input and target are tokenised once, as one string, so the tokens are those the model meets at inference. A token that
  straddles the two belongs to the target; `encode_prompt` cuts a greedy prompt at that same boundary.
- BOS is whatever the tokenizer itself adds. EOS follows the target once, if the tokenizer has one, and carries loss.
- A chat template is used only when asked for: input = user turn, target = assistant turn. The template's end of turn
  follows the target; what it prints after EOS is left out.
- A span's tokens run from the first to the last that shares a character with it, white space at its own ends aside.
- The row that predicts token i is i - 1. No row allows a column after itself; a cause's token that is also a token of
  the effect is dropped, and counted.
- Nothing is truncated: an example over `max_length` comes back whole, marked `over`, with what would be cut counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from core.domain.annotation import Example
from core.domain.training import Rows
from core.errors import InvalidInput
from trainer.layout import Layout, layout_of
from trainer.rows import Edges, Offsets, Ruler, row_tables

Ints: TypeAlias = NDArray[np.int32]

_CHUNK = 256  # examples at a time: shares numpy's overhead while the expanded index pairs stay small
_PROBE = "a"  # stands for an unknown target: like most words, a letter takes the space before it into its token


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens, with its supervised rows in compressed form.

    Row k stands at position `row_positions[k]` and may see `columns[column_starts[k]:column_starts[k + 1]]`.
    """

    example_id: str
    ids: Ints  # (T,)
    prompt_length: int  # leading tokens without loss
    row_positions: Ints  # (R,) increasing
    column_starts: Ints  # (R + 1,)
    columns: Ints  # (n,) increasing within a row, never above its row
    over: bool = False  # longer than max_length
    cut_effects: int = 0  # effects that max_length would shorten
    cut_causes: int = 0  # causes that max_length would shorten
    straddling_causes: int = 0  # edges whose cause lost a token because it reaches into the effect


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is given to go on from."""

    ids: Ints  # (P,)
    pending: str  # the end of the input that the first generated token repeats; "" where no token straddles


def encode(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    *,
    max_length: int,
    rows: Rows | None,
    chat_template: bool = False,
) -> Encoded:
    """One example as tokens and supervised rows; see `encode_all`."""
    return encode_all(tokenizer, [example], max_length=max_length, rows=rows, chat_template=chat_template)[0]


def encode_all(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    max_length: int,
    rows: Rows | None,
    chat_template: bool = False,
) -> list[Encoded]:
    """Examples as tokens and supervised rows, in order.

    Parameters
    ----------
    max_length
        In tokens, EOS included. Longer examples are marked `over`, not cut.
    rows
        Which rows to supervise; None for none.

    Raises
    ------
    InvalidInput
        The tokenizer gives no usable offsets, has no chat template though asked for one, or finds no token in a target.
    """
    _require_offsets(tokenizer)
    encoded: list[Encoded] = []
    for begin in range(0, len(examples), _CHUNK):
        chunk = examples[begin : begin + _CHUNK]
        layouts = [layout_of(example, tokenizer, chat_template=chat_template) for example in chunk]
        encoded += _encode_chunk(tokenizer, chunk, layouts, max_length, rows)
    return encoded


def encode_prompt(tokenizer: PreTrainedTokenizerBase, example: Example, *, chat_template: bool = False) -> Prompt:
    """The tokens to generate from: those that training puts before the target's first token.

    The target decides only where that boundary falls ("Answer: " + "High" may leave the space to the target's first
    token, "Answer: " + "42" not); where it is empty, a letter stands for it.
    """
    _require_offsets(tokenizer)
    probed = example if example.target else Example(example.input, _PROBE, example.id)
    layout = layout_of(probed, tokenizer, chat_template=chat_template)
    ids, offsets = _tokenize(tokenizer, [layout])
    length = _prompt_length(np.array([end for _, end in offsets[0]]), layout, probed)
    straddling_start = offsets[0][length][0]
    return Prompt(np.array(ids[0][:length], np.int32), layout.text[straddling_start : layout.target_start])


def _encode_chunk(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    layouts: Sequence[Layout],
    max_length: int,
    rows: Rows | None,
) -> list[Encoded]:
    ids, offsets = _tokenize(tokenizer, layouts)
    ruler = Ruler(offsets, [len(layout.text) for layout in layouts])
    edges = _edges(examples, layouts, ruler)
    ends = [ruler.ends_of(index) for index in range(len(examples))]
    prompts = [_prompt_length(*parts) for parts in zip(ends, layouts, examples, strict=True)]
    tables = row_tables(edges, rows, np.array(prompts))
    straddling = np.bincount(edges.owner[edges.straddles], minlength=len(examples))
    encoded = []
    for index, (example, layout, table) in enumerate(zip(examples, layouts, tables, strict=True)):
        tokens = _ended(tokenizer, ids[index], ends[index], layout)
        over = len(tokens) > max_length
        cut_effects, cut_causes = _count_cut(edges, index, max_length) if over else (0, 0)
        encoded.append(
            Encoded(
                example_id=example.id,
                ids=tokens,
                prompt_length=prompts[index],
                row_positions=table.positions,
                column_starts=table.starts,
                columns=table.columns,
                over=over,
                cut_effects=cut_effects,
                cut_causes=cut_causes,
                straddling_causes=int(straddling[index]),
            )
        )
    return encoded


def _require_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise InvalidInput(
            "this base model has a slow tokenizer, which cannot say where its tokens stand in the text; "
            "a base with a tokenizer.json is needed",
            field="base",
        )


def _tokenize(tokenizer: PreTrainedTokenizerBase, layouts: Sequence[Layout]) -> tuple[list[list[int]], list[Offsets]]:
    batch = tokenizer(
        [layout.text for layout in layouts],
        add_special_tokens=not layouts[0].is_chat,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # it would warn about lengths, which are checked here
    )
    return batch["input_ids"], batch["offset_mapping"]


def _edges(examples: Sequence[Example], layouts: Sequence[Layout], ruler: Ruler) -> Edges:
    """Every pair of an effect and one of its causes that both have tokens, as token ranges."""
    spans: list[tuple[int, int, int]] = []  # owner, start, end; effect and cause alternate
    for owner, (example, layout) in enumerate(zip(examples, layouts, strict=True)):
        for relation in example.relations:
            causes = [placed for cause in relation.causes for placed in layout.place(cause)]
            for effect in layout.place(relation.effect):
                for cause in causes:
                    spans += ((owner, *effect), (owner, *cause))
    owners, starts, ends = np.array(spans, np.int64).reshape(-1, 3).T
    lo, hi = ruler.tokens(owners, starts, ends)
    found = (hi > lo).reshape(-1, 2).all(1)
    return Edges(
        owners[::2][found],
        effect_lo=lo[::2][found],
        effect_hi=hi[::2][found],
        cause_lo=lo[1::2][found],
        cause_hi=hi[1::2][found],
    )


def _prompt_length(ends: NDArray[np.int64], layout: Layout, example: Example) -> int:
    """How many tokens stand before the first one that reaches into the target."""
    reaches = ends > layout.target_start
    if not reaches.any():
        raise InvalidInput("the target has no token of its own", field="target", example=example.id)
    return int(reaches.argmax())


def _ended(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: NDArray[np.int64], layout: Layout) -> Ints:
    """The ids with exactly one EOS after the target, where the tokenizer has one."""
    eos = tokenizer.eos_token_id
    if eos is None:
        return np.array(ids, np.int32)
    if eos not in ids:
        return np.array([*ids, eos], np.int32)
    tokens = np.array(ids, np.int32)
    # From the target's last token on: after it comes what the tokenizer or the template adds.
    within = np.flatnonzero((ends > layout.target_start) & (ends <= layout.target_end))
    last = int(within[-1]) if within.size else len(ids)
    there = np.flatnonzero(tokens[last:] == eos)
    if there.size:
        return tokens[: last + there[0] + 1]
    return np.append(tokens, np.int32(eos))


def _count_cut(edges: Edges, owner: int, max_length: int) -> tuple[int, int]:
    """How many distinct effects and causes of one example reach past `max_length` tokens."""
    mine = edges.owner == owner
    effects = {*zip(edges.effect_lo[mine].tolist(), edges.effect_hi[mine].tolist(), strict=True)}
    causes = {*zip(edges.cause_lo[mine].tolist(), edges.cause_hi[mine].tolist(), strict=True)}
    return sum(hi > max_length for _, hi in effects), sum(hi > max_length for _, hi in causes)
