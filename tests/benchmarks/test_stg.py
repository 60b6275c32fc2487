import hashlib
import json
import random

import pytest

from benchmarks import stg
from core.domain.run_folder import example_from_json

# Of the published files: compact, key-sorted JSON of input, target and (training files) important, joined by newlines.
PUBLISHED_SHA256 = {
    "train_s": "88e432267da4550963c0319a3bcee585f3dc320db4874e9d297166f6640eebe2",
    "train_m": "a24f6d3167edffd053e54ba0ac66e26be2dd9f4ef2d4c696675ac29c01ead4aa",
    "train_l": "b0220c9cb20f42bce276326512f8be8e4daadd05dfad7fb4815a0ca63a0d5a14",
    "iid": "38541144eace828ef177037bc56f4530ce76710ebe1389ca85edc37197e5347a",
    "ood": "14c74c758a7bf406dc3652c912f1a4fc237799a042f06dd5bdd65b62bb276dd7",
}


@pytest.mark.parametrize("split", stg.PUBLISHED_SPLITS)
def test_seed_42_reproduces_the_published_files(split: str) -> None:
    lines = [json.dumps(record, sort_keys=True, separators=(",", ":")) for record in stg.published(split)]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == PUBLISHED_SHA256[split]


def test_published_training_sets_are_nested_prefixes() -> None:
    large = stg.published("train_l")
    assert stg.published("train_m") == large[:800]
    assert stg.published("train_s") == large[:400]


@pytest.mark.parametrize("ood", [False, True])
def test_relations_cover_the_three_causal_phrases_and_the_target(ood: bool) -> None:
    for example in stg.generate(50, seed=3, ood=ood):
        (relation,) = example.relations
        relation.check_against(example.text)
        assert relation.effect.of(example.text) == example.target
        causes = [cause.of(example.text) for cause in relation.causes]
        assert sorted(cause.split(":")[0] for cause in causes) == sorted(stg.CAUSAL)
        value = {name: int(number) for name, number in (cause.split(": ") for cause in causes)}
        risk = 1.2 * value["Smoking"] + 0.7 * value["Weight"] - value["Exercise"]
        assert example.target == (stg.HIGH if risk > 7.2 else stg.LOW)
        assert set(example.choices) == {stg.HIGH, stg.LOW}


def test_spurious_attributes_follow_the_causes_in_distribution_only() -> None:
    assert all(map(_follows, stg.generate(200, seed=5)))
    assert sum(map(_follows, stg.generate(200, seed=5, ood=True))) < 20


def test_generation_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    random.seed(0)
    before = random.getstate()
    first = list(stg.generate(20, seed=1))
    assert random.getstate() == before
    assert first == list(stg.generate(20, seed=1))
    other = [*stg.generate(20, seed=2), *stg.generate(20, seed=1, ood=True)]
    assert not {e.input for e in first} & {e.input for e in other}
    assert len({e.id for e in (*first, *other)}) == 60


def test_command_prints_examples_and_published_records(capsys: pytest.CaptureFixture[str]) -> None:
    stg.main(["--n", "3", "--seed", "1", "--ood"])
    lines = capsys.readouterr().out.splitlines()
    assert [example_from_json(json.loads(line)) for line in lines] == list(stg.generate(3, seed=1, ood=True))

    stg.main(["--seed", "42", "--format", "published", "--split", "iid", "--n", "2"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == stg.published("iid")[:2]


def _follows(example) -> bool:
    body = example.input.split("cancer. ")[1].removesuffix(" Answer: ")
    value = {name: int(number) for name, number in (part.split(": ") for part in body.split(", "))}
    return (
        value["Yellow fingers"] == 3 * value["Smoking"] // 2
        and value["Clothing size"] == value["Weight"]
        and value["Hormones"] == value["Exercise"] // 2
    )
