"""Evaluation against slow, plain references: one text at a time, no padding, full logits and full maps."""

import json
from dataclasses import replace

import pytest
import torch

from core.domain.annotation import Example
from core.domain.relations import Relation
from core.domain.run_folder import BaseModelSpec, RunConfig, example_to_json
from core.domain.spans import Span
from core.domain.training import TrainingConfig
from core.errors import InvalidInput, NotFound, NoUsableRelations
from trainer.adapter import export_adapter
from trainer.answers import greedy_answers, likeliest_choices
from trainer.evaluate import evaluate, main
from trainer.examples import read_examples
from trainer.maps import attention_mass, stock_attention
from trainer.model import add_lora, load_base

SMALL = BaseModelSpec("builtin:small", "builtin:small")
CHOICES = ("High Risk", "Low Risk", "Middle Risk")


def _examples() -> list[Example]:
    texts = [
        "Smoking: 4, Weight: 10 Answer: ",
        "Weight: 3, a longer one with Exercise: 7, Smoking: 9 and Hormones: 0 Answer: ",
        "Smoking: 1 Answer: ",
        "日本 😀 Smoking: 8 Answer: ",
        "Exercise: 2",
    ]
    return [
        Example(text, CHOICES[index % 2], str(index), CHOICES, _relations(text)) for index, text in enumerate(texts)
    ]


def _relations(text: str) -> tuple[Relation, ...]:
    at = text.find("Smoking: ")
    if at < 0:
        return ()
    return (Relation(Span(len(text), len(text) + len("Low")), (Span(at, at + len("Smoking: 0")),)),)


def _plain_score(small, example: Example, choice: str) -> float:
    """Summed log-likelihood of a choice and its EOS. The first token of a choice is the first that ends inside it."""
    text = example.input + choice
    batch = small.tokenizer(text, return_offsets_mapping=True)
    ids = [*batch["input_ids"], small.tokenizer.eos_token_id]
    first = next(i for i, (_, end) in enumerate(batch["offset_mapping"]) if end > len(example.input))
    with torch.no_grad():
        log_p = small.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(log_p[i - 1, ids[i]]) for i in range(first, len(ids)))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_likeliest_choice_is_that_of_the_plain_reference(small, batch_size):
    choices = ("water", "High", "tree", "Low", "five", "7", "money", "city")
    examples = [replace(example, choices=choices, relations=()) for example in _examples()]
    expected = [max(choices, key=lambda choice: _plain_score(small, example, choice)) for example in examples]
    assert likeliest_choices(small.model, small.tokenizer, examples, batch_size=batch_size) == expected
    assert len(set(expected)) > 1, "one answer for all would hide a mix-up"


def test_scores_do_not_depend_on_the_batch(small):
    """The winner alone could hide a wrong mask: force each choice to win by asking about it and a hopeless one."""
    from trainer.answers import _log_likelihoods
    from trainer.encoding import encode_all

    candidates = [replace(example, target=choice) for example in _examples() for choice in CHOICES]
    encoded = encode_all(small.tokenizer, candidates, max_length=10**6, rows=None)
    together = _log_likelihoods(small.model, encoded)
    expected = torch.tensor([_plain_score(small, example, example.target) for example in candidates]).double()
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-4)


def test_greedy_answers_are_those_of_the_plain_reference(small):
    examples = [replace(example, choices=()) for example in _examples()]
    answers = greedy_answers(small.model, small.tokenizer, examples, batch_size=3)
    for example, answer in zip(examples, answers, strict=True):
        cut = example.input.rstrip() if example.input.endswith(" ") else example.input
        ids = small.tokenizer(cut)["input_ids"]
        with torch.no_grad():
            token = int(small.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        assert answer.startswith(small.tokenizer.decode([token], skip_special_tokens=True).strip())


def test_greedy_decoding_stops_at_eos(small):
    """A head that always says EOS answers nothing, which is right for nobody."""
    model = load_base(SMALL).model
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[small.tokenizer.eos_token_id] = model.model.norm.weight
        model.model.norm.weight.abs_()
        model.model.embed_tokens.weight.abs_()
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.o_proj.weight.zero_()
    examples = [replace(example, choices=()) for example in _examples()]
    assert greedy_answers(model, small.tokenizer, examples, batch_size=8) == [""] * len(examples)


def test_metrics_by_hand(small):
    """Targets High, Low, High, Low, High; the model's own answers fix which are right."""
    examples = _examples()
    given = likeliest_choices(small.model, small.tokenizer, examples, batch_size=8)
    right = [answer == example.target for answer, example in zip(given, examples, strict=True)]
    high, low = [right[0], right[2], right[4]], [right[1], right[3]]
    assert evaluate(small.model, small.tokenizer, examples) == {
        "accuracy": sum(right) / 5,
        "balanced_accuracy": (sum(high) / 3 + sum(low) / 2) / 2,
        "majority": 3 / 5,
        "n": 5,
    }


def test_right_answers_count_with_and_without_choices(small):
    examples = _examples()
    chosen = likeliest_choices(small.model, small.tokenizer, examples, batch_size=8)
    told = [replace(example, target=answer, relations=()) for example, answer in zip(examples, chosen, strict=True)]
    assert evaluate(small.model, small.tokenizer, told)["accuracy"] == 1.0
    wrong = [replace(example, choices=(), target="no such answer", relations=()) for example in examples]
    assert evaluate(small.model, small.tokenizer, [*told, *wrong])["accuracy"] == 0.5


def test_evaluation_leaves_the_mode_as_it_was(small):
    small.model.train()
    try:
        evaluate(small.model, small.tokenizer, _examples()[:1])
        assert small.model.training
    finally:
        small.model.eval()


def test_nothing_to_evaluate_is_refused(small):
    with pytest.raises(InvalidInput, match="nothing to evaluate"):
        evaluate(small.model, small.tokenizer, [])


def test_mass_is_that_of_the_full_maps(small):
    examples = _examples()
    masses = []
    with stock_attention(small.model):
        for example in examples:
            if not example.relations:
                continue
            text = example.text
            batch = small.tokenizer(text, return_offsets_mapping=True)
            ids = [*batch["input_ids"], small.tokenizer.eos_token_id]
            maps = torch.stack(small.model(input_ids=torch.tensor([ids]), output_attentions=True).attentions)[:, 0]
            cause = example.relations[0].causes[0]
            columns = [i for i, (a, b) in enumerate(batch["offset_mapping"]) if a < cause.end and b > cause.start]
            rows = [
                i - 1
                for i, (a, b) in enumerate(batch["offset_mapping"])
                if a < example.relations[0].effect.end and b > example.relations[0].effect.start
            ]
            masses += [float(maps[:, :, row, columns].sum(-1).mean()) for row in rows]
    assert attention_mass(small.model, small.tokenizer, examples) == pytest.approx(sum(masses) / len(masses), abs=1e-6)
    assert small.model.config._attn_implementation == "sdpa"


def test_mass_needs_relations(small):
    with pytest.raises(NoUsableRelations):
        attention_mass(small.model, small.tokenizer, [replace(e, relations=()) for e in _examples()])


def test_command_measures_the_base(tmp_path, capsys):
    data = tmp_path / "iid.jsonl"
    data.write_text("".join(json.dumps(example_to_json(example)) + "\n" for example in _examples()))
    out = tmp_path / "report.json"
    assert main(["--base", "builtin:small", "--data", str(data), "--mass-on", str(data), "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text())
    assert report["splits"]["iid"]["n"] == 5
    assert 0 < report["mass"] < 1
    assert report["adapter"] is None


def test_bad_lines_are_named(tmp_path, capsys):
    data = tmp_path / "iid.jsonl"
    data.write_text(json.dumps(example_to_json(_examples()[0])) + "\n\nnot json\n")
    with pytest.raises(InvalidInput, match=r"iid\.jsonl, line 3: not a JSON object") as caught:
        read_examples(data)
    assert caught.value.facts["line"] == 3
    with pytest.raises(NotFound):
        read_examples(tmp_path / "none.jsonl")
    assert main(["--base", "builtin:small", "--data", str(data)]) == 1
    assert capsys.readouterr().err.startswith("invalid_input: iid.jsonl, line 3")


def test_command_measures_an_adapter_and_refuses_a_damaged_one(tmp_path, capsys):
    model = add_lora(load_base(SMALL).model, TrainingConfig(lora_rank=2))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.fill_(0.2)
    base = load_base(SMALL)
    folder = tmp_path / "adapter"
    run = RunConfig(SMALL, TrainingConfig(lora_rank=2))
    export_adapter(model, base.tokenizer, folder, run=run, revision=base.revision, metrics={})
    data = tmp_path / "ood.jsonl"
    data.write_text("".join(json.dumps(example_to_json(example)) + "\n" for example in _examples()))
    arguments = ["--base", "builtin:small", "--adapter", str(folder), "--data", str(data), "--mass-on", str(data)]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splits"]["ood"] == evaluate(model, base.tokenizer, _examples())
    assert report["mass"] == pytest.approx(attention_mass(model, base.tokenizer, _examples()), abs=1e-6)
    assert report["mass"] != pytest.approx(attention_mass(base.model, base.tokenizer, _examples()), abs=1e-4)
    (folder / "adapter_config.json").write_text("{}")
    assert main(arguments) == 1
    assert "adapter_config.json" in capsys.readouterr().err
