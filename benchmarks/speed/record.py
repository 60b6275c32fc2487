"""What has been measured so far, scene by scene, in a file that a later run goes on with."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.contestants import Contestant
from benchmarks.speed.measure import Entrant, Memory

_INNERMOST = re.compile(r"\[[^][{}]*\]|{[^][{}]*}")


@dataclass(slots=True)
class Measured:
    """Of one scene. Rounds of several runs stand together: each is paired in itself."""

    length: int
    checkpointing: bool
    settings: dict[str, Any]  # of the machine, the libraries and our code; rounds of others are not added to these
    entrants: list[Entrant]
    rounds: list[list[float]] = field(default_factory=list)  # seconds of each entrant's step
    loads: list[float] = field(default_factory=list)  # of the machine, before each round
    memories: list[Memory] = field(default_factory=list)  # of the first entrants, or all

    def times(self, entrant: Entrant) -> list[float]:
        """Seconds of its step in each round."""
        place = self.entrants.index(entrant)
        return [one[place] for one in self.rounds]

    def memory(self, entrant: Entrant) -> Memory | None:
        """None where not measured."""
        place = self.entrants.index(entrant)
        return self.memories[place] if place < len(self.memories) else None

    def is_whole(self, steps: int, *, memory: bool) -> bool:
        """Whether nothing is left to be measured."""
        return len(self.rounds) >= steps and (len(self.memories) == len(self.entrants) or not memory)

    def goes_on_with(self, other: "Measured") -> bool:
        """Whether rounds of `other` may stand beside ours."""
        return self.settings == other.settings and self.entrants == other.entrants


def load(path: Path) -> dict[tuple[int, bool], Measured]:
    """By length and checkpointing; empty where there is no file."""
    if not path.exists():
        return {}
    scenes = [_measured(scene) for scene in json.loads(path.read_text())["scenes"]]
    return {(scene.length, scene.checkpointing): scene for scene in scenes}


def save(path: Path, scenes: Sequence[Measured], **facts: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(scenes, key=lambda scene: (scene.checkpointing, scene.length))
    whole = json.dumps({**facts, "scenes": [asdict(scene) for scene in ordered]}, indent=1)
    whole = _INNERMOST.sub(lambda found: " ".join(found[0].split()), whole)  # a line for a round, not for a number
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(whole + "\n")
    unfinished.replace(path)


def _measured(plain: dict[str, Any]) -> Measured:
    entrants = [Entrant(Contestant(one["contestant"]), one["share"]) for one in plain["entrants"]]
    return Measured(**{**plain, "entrants": entrants, "memories": [Memory(**one) for one in plain["memories"]]})
