import re
from dataclasses import replace
from pathlib import Path

from annotator.grounding import ground
from annotator.parsing import REPLY_SCHEMA, parse_reply
from annotator.prior import load_prior
from annotator.prompts import prompt_hash, render, render_item, render_reask
from core.domain.annotation import Example

STG = load_prior((Path(__file__).parents[2] / "examples" / "priors" / "stg.yaml").read_text(encoding="utf-8"))
EXAMPLE = Example("Tom has 5 eggs.\nHe eats 2. How many are left? Answer: ", "3 eggs")


def test_an_item_is_its_numbered_segments_with_the_target_apart() -> None:
    assert render_item(EXAMPLE.input, EXAMPLE.target) == (
        "INPUT\n[1] Tom has 5 eggs.\n[2] He eats 2.\n[3] How many are left?\n[4] Answer:\n\nTARGET\n[5] 3 eggs"
    )


def test_a_prompt_is_system_prior_and_item() -> None:
    system, *turns, item = render(STG, EXAMPLE)
    assert system["role"] == "system"
    assert system["content"].endswith(STG.instructions.strip())
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * len(STG.demonstrations)
    assert item == {"role": "user", "content": render_item(EXAMPLE.input, EXAMPLE.target)}


def test_demonstrated_replies_say_the_demonstrations_relations() -> None:
    _, *turns, _ = render(STG, EXAMPLE)
    for demonstration, question, reply in zip(STG.demonstrations, turns[::2], turns[1::2], strict=True):
        text = demonstration.input + demonstration.target
        said = parse_reply(reply["content"])
        assert ground(text, len(demonstration.input), said)[0][0].relation == (
            ground(text, len(demonstration.input), demonstration.relations)[0][0].relation
        )
        lines = dict(re.findall(r"^\[(\d+)\] (.*)$", question["content"], re.MULTILINE))
        for relation in said:
            for quote in (relation.effect, *relation.causes):
                assert quote.quote in lines[str(quote.segment)]


def test_asking_again_shows_the_reply_and_its_trouble() -> None:
    messages = render(STG, EXAMPLE)
    again = render_reask(messages, "high", "the reply must be one JSON object")
    assert again[:-2] == messages
    assert again[-2] == {"role": "assistant", "content": "high"}
    assert "the reply must be one JSON object" in again[-1]["content"]


def test_the_hash_covers_all_that_shapes_a_reply() -> None:
    messages, parameters = render(STG, EXAMPLE), {"temperature": 0.0}
    keys = [
        prompt_hash(messages, "m", parameters, REPLY_SCHEMA),
        prompt_hash(render(STG, replace(EXAMPLE, target="4 eggs")), "m", parameters, REPLY_SCHEMA),
        prompt_hash(render(replace(STG, instructions="Other."), EXAMPLE), "m", parameters, REPLY_SCHEMA),
        prompt_hash(messages, "n", parameters, REPLY_SCHEMA),
        prompt_hash(messages, "m", {"temperature": 0.5}, REPLY_SCHEMA),
        prompt_hash(messages, "m", parameters, {}),
    ]
    assert len(set(keys)) == len(keys)
    assert prompt_hash(render(STG, EXAMPLE), "m", {"temperature": 0.0}, dict(REPLY_SCHEMA)) == keys[0]


def test_more_demonstrations_come_after_those_of_the_prior() -> None:
    drawn = STG.demonstrations[:1]
    plain, shown = render(STG, EXAMPLE), render(STG, EXAMPLE, drawn)
    assert shown[: len(plain) - 1] == plain[:-1]
    assert shown[-1] == plain[-1]
    assert shown[len(plain) - 1 : -1] == plain[1:3]  # a question and its answer, as the prior's own
    assert prompt_hash(shown, "m", {}, REPLY_SCHEMA) != prompt_hash(plain, "m", {}, REPLY_SCHEMA)
