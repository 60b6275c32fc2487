"""What a model answers: the likeliest of given choices, or what it writes by greedy decoding."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from core.domain.annotation import Example
from core.errors import NotFinite, OutOfMemory
from trainer.encoding import Encoded, Prompt, encode_all, encode_prompt
from trainer.memory import within_memory
from trainer.sharding import is_sharded

Model: TypeAlias = PreTrainedModel | PeftModel

ANY_LENGTH = 2**31 - 1
_SLACK = 4  # tokens of greedy decoding beyond the longest target: white space, or the target in other tokens


class Stopped(Exception):
    """`should_stop` said yes before all was answered."""


def never() -> bool:
    """The `should_stop` of who is not to be interrupted."""
    return False


def likeliest_choices(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch_size: int,
    chat_template: bool = False,
    should_stop: Callable[[], bool] = never,
) -> list[str]:
    """For each example the choice whose tokens have the highest summed log-likelihood; the first of equals.

    The EOS counts as a choice's last token, so "1" is not likelier than "10" for being its beginning.

    Raises
    ------
    NotFinite
        A likelihood is NaN.
    OutOfMemory
        Memory does not hold the evaluation of one text.
    Stopped
        `should_stop` said so, between two batches.
    """
    owners = [index for index, example in enumerate(examples) for _ in example.choices]
    candidates = [replace(example, target=choice, relations=()) for example in examples for choice in example.choices]
    encoded = encode_all(tokenizer, candidates, max_length=ANY_LENGTH, rows=None, chat_template=chat_template)
    lengths = [len(item.ids) for item in encoded]
    scores = np.empty(len(encoded))

    def score(chunk: list[int]) -> None:
        scores[chunk] = _log_likelihoods(model, [encoded[index] for index in chunk]).numpy()

    _in_batches(lengths, batch_size, score, should_stop, divisible=not is_sharded(model))
    if np.isnan(scores).any():
        raise NotFinite("the model's likelihoods are not numbers")
    best: dict[int, int] = {}
    for candidate, owner in enumerate(owners):
        if owner not in best or scores[candidate] > scores[best[owner]]:
            best[owner] = candidate
    return [candidates[best[index]].target for index in range(len(examples))]


def greedy_answers(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch_size: int,
    chat_template: bool = False,
    should_stop: Callable[[], bool] = never,
) -> list[str]:
    """What the model writes after each input, without the white space around it.

    It may write a few tokens more than the longest target of its batch, so a right answer that goes on is a wrong one.
    Raises OutOfMemory and Stopped as likeliest_choices.
    """
    prompts = [encode_prompt(tokenizer, example, chat_template=chat_template) for example in examples]
    targets = encode_all(tokenizer, examples, max_length=ANY_LENGTH, rows=None, chat_template=chat_template)
    budgets = [len(target.ids) - target.prompt_length + _SLACK for target in targets]
    lengths = [len(prompt.ids) for prompt in prompts]
    answers = [""] * len(examples)

    def write(chunk: list[int]) -> None:
        budget = max(budgets[index] for index in chunk)
        written = _generate(model, tokenizer, [prompts[index] for index in chunk], budget)
        for index, text in zip(chunk, written, strict=True):
            answers[index] = text.removeprefix(prompts[index].pending).strip()

    _in_batches(lengths, batch_size, write, should_stop, divisible=not is_sharded(model))
    return answers


@torch.inference_mode()
def _log_likelihoods(model: Model, batch: Sequence[Encoded]) -> Tensor:
    """(B,) summed log-probability of the tokens after each prompt. Padding is on the right: positions stay 0, 1, ..."""
    lengths = torch.tensor([len(item.ids) for item in batch])  # (B,)
    prompts = torch.tensor([item.prompt_length for item in batch])  # (B,)
    width = int(lengths.max())
    ids = torch.zeros(len(batch), width, dtype=torch.long)  # (B, T)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.from_numpy(item.ids)
    position = torch.arange(width)
    first = max(int(prompts.min()) - 1, 0)  # the earliest row that predicts a target token
    logits: Tensor = model(
        input_ids=ids.to(model.device),
        attention_mask=(position < lengths[:, None]).long().to(model.device),
        logits_to_keep=width - first,
        use_cache=False,
    ).logits[:, first - width : -1]  # (B, T - first - 1, V)
    log_p = logits.float().log_softmax(-1).gather(-1, ids[:, first + 1 :, None].to(logits.device))[..., 0].cpu()
    position = position[first + 1 :]
    wanted = (position >= prompts[:, None]) & (position < lengths[:, None])  # (B, T - first - 1)
    return log_p.masked_fill(~wanted, 0.0).double().sum(1)


def _generate(model: Model, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], budget: int) -> list[str]:
    width = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), tokenizer.pad_token_id, dtype=torch.long)
    seen = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.ids) :] = torch.from_numpy(prompt.ids)
        seen[row, width - len(prompt.ids) :] = 1
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=budget,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    output = model.generate(  # type: ignore[operator]  # mypy takes it for a submodule
        input_ids=ids.to(model.device), attention_mask=seen.to(model.device), generation_config=config
    )
    return list(tokenizer.batch_decode(output[:, width:], skip_special_tokens=True))


def _in_batches(
    lengths: Sequence[int],
    batch_size: int,
    work: Callable[[list[int]], None],
    should_stop: Callable[[], bool],
    *,
    divisible: bool,
) -> None:
    """Do `work` on the indices in batches of like length, the longest first, and halve them where memory runs out.

    Of processes that share a model's weights none may halve alone: there batches are not `divisible`.

    Raises
    ------
    OutOfMemory
        A batch does not fit, and cannot be halved.
    Stopped
        `should_stop` said so, before a batch.
    """
    left = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while left:
        if should_stop():
            raise Stopped
        batch = left[:batch_size]
        if _fits(work, batch):
            left = left[batch_size:]
        elif divisible and len(batch) > 1:
            batch_size = len(batch) // 2
        else:
            raise OutOfMemory(
                f"memory does not hold an evaluation of {len(batch)} texts of up to {max(lengths)} tokens; leave the "
                "longest examples out of the evaluated splits",
                batch_size=len(batch),
            )


def _fits(work: Callable[[list[int]], None], batch: list[int]) -> bool:
    def done() -> bool:
        work(batch)
        return True

    return within_memory(done) is True
