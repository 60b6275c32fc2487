"""What calls are charged: set aside before each, settled by how it ended."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from annotator.annotate import annotate_one, open_teacher
from annotator.teachers.chat_format import most_tokens
from core.domain.annotation import Annotation, Usage
from core.errors import BudgetExhausted
from tests.annotator.test_openai_teacher import CONFIG, EXAMPLES, PRIOR
from tests.fake_teacher import FakeTeacher

REPORTED = Usage(100, 20)  # what the fake teacher says


@dataclass
class Wallet:
    """A purse that holds so many calls, and remembers."""

    calls: int = 100
    reserved: list[Usage] = field(default_factory=list)
    settled: dict[int, Usage] = field(default_factory=dict)

    async def reserve(self, most: Usage) -> int:
        if len(self.reserved) >= self.calls:
            raise BudgetExhausted("empty")
        self.reserved.append(most)
        return len(self.reserved) - 1

    def settle(self, reservation: int, usage: Usage) -> None:
        assert reservation not in self.settled
        self.settled[reservation] = usage


def _label(fake: FakeTeacher, wallet: Wallet) -> Annotation:
    async def run() -> Annotation:
        config = replace(CONFIG, base_url=fake.base_url)
        async with open_teacher(config, PRIOR, purse=wallet) as teacher:
            return await annotate_one(teacher, EXAMPLES[0])

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("faults", "usage", "charged"),
    [
        ([], True, ["reported"]),
        ([], False, ["most"]),  # nobody says: all that was set aside
        (["429"], True, ["nothing", "reported"]),
        (["503"], True, ["nothing", "reported"]),
        (["reset"], True, ["most", "reported"]),  # it may have been charged before the line went dead
        (["hang"], True, ["most", "reported"]),
        (["prose"], True, ["reported", "reported"]),  # asked again
        (["400", "400", "400"], True, ["nothing"]),
    ],
)
def test_each_end_is_charged_as_far_as_one_can_know(faults: list[str], usage: bool, charged: list[str]) -> None:
    wallet = Wallet()
    with FakeTeacher(faults, usage=usage).serving() as fake:
        _label(fake, wallet)
    amounts = {"reported": lambda most: REPORTED, "most": lambda most: most, "nothing": lambda most: Usage()}
    expected = [amounts[name](most) for name, most in zip(charged, wallet.reserved, strict=True)]
    assert [wallet.settled[number] for number in range(len(expected))] == expected


def test_an_empty_purse_sends_no_call() -> None:
    with FakeTeacher(["prose"]).serving() as fake:
        with pytest.raises(BudgetExhausted):
            _label(fake, Wallet(calls=1))
        assert len(fake.calls) == 1


def test_the_most_is_no_less_than_its_bytes() -> None:
    most = most_tokens([{"role": "user", "content": "é" * 50}], {}, 16)
    assert most.prompt_tokens >= 100
    assert most.completion_tokens == 16
