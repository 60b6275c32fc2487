"""YAML for priors: every scalar stays the text that was written; no aliases, no doubled keys."""

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """Mappings, lists and text. `No`, `80.0` and `1` stay text, because in a prior they are phrases, not values.

    Raises yaml.YAMLError for anything that is not YAML, for an alias (a few bytes of them expand to gigabytes) and for
    a key given twice (the first would be lost).
    """
    return yaml.load(text, Loader=_TextLoader)  # noqa: S506 (BaseLoader constructs text, lists and mappings only)


class _TextLoader(yaml.BaseLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001 (PyYAML's)
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key_node.value!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)
