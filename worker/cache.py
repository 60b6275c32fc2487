"""Teachers' replies kept in the database, so that a prompt is paid for once."""

from collections.abc import Sequence
from typing import Any

from annotator.teachers.base import Finish, Reply
from core import annotation_items
from core.db.session import Database
from core.domain.annotation import Usage
from worker.gathered import Gathered

LONGEST = 200_000  # code points of a reply worth keeping; a longer one is an outcome, not an asset


class DatabaseReplyCache:
    """An annotator.teachers.base.ReplyCache of one tenant, for use in one event loop.

    What concurrent calls look up, or store, shares a query: a query for each would cost more than all the rest.
    """

    def __init__(self, database: Database, tenant_id: str) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._reads = Gathered(self._read)
        self._writes = Gathered(self._write)

    async def get(self, prompt_hash: str) -> Reply | None:
        """The reply stored under this hash, if any."""
        return await self._reads.ask(prompt_hash)

    async def put(self, prompt_hash: str, reply: Reply) -> None:
        """Store a reply before it is used: it was paid for."""
        if len(reply.text) <= LONGEST:
            await self._writes.ask((prompt_hash, reply))

    def _read(self, hashes: Sequence[str]) -> list[Reply | None]:
        with self._database.reading() as session:
            found = annotation_items.stored_replies(session, tenant_id=self._tenant_id, prompt_hashes=hashes)
        return [reply_from_json(found[key]) if key in found else None for key in hashes]

    def _write(self, replies: Sequence[tuple[str, Reply]]) -> list[None]:
        with self._database.transaction() as uow:
            rows = {key: reply_to_json(reply) for key, reply in replies}
            annotation_items.store_replies(uow, tenant_id=self._tenant_id, replies=rows)
        return [None] * len(replies)


def reply_to_json(reply: Reply) -> dict[str, Any]:
    """A reply as the database keeps it."""
    usage = {"prompt_tokens": reply.usage.prompt_tokens, "completion_tokens": reply.usage.completion_tokens}
    return {"text": reply.text, "usage": usage, "finish": reply.finish.value}


def reply_from_json(value: dict[str, Any]) -> Reply:
    """Inverse of reply_to_json."""
    return Reply(value["text"], Usage(**value["usage"]), Finish(value["finish"]))
