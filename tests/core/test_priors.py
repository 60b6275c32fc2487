from concurrent.futures import ThreadPoolExecutor

import pytest

from core import priors
from core.db.session import Database
from core.errors import Conflict, NotFound

BODY = {"name": "stg", "version": "1", "instructions": "Find the causes.", "rules": [{"causes": ["a"]}]}


def create(database: Database, body: dict[str, object] = BODY, tenant_id: str = "acme") -> tuple[str, bool]:
    with database.transaction() as uow:
        row, new = priors.create(uow, tenant_id=tenant_id, name="stg", version="1", body=body)
        return row.id, new


def test_the_same_prior_again_is_the_same_row(database: Database) -> None:
    prior_id, new = create(database)
    assert new
    assert create(database, dict(reversed(BODY.items()))) == (prior_id, False)
    with database.reading() as session:
        assert priors.get(session, tenant_id="acme", prior_id=prior_id).body == BODY


def test_a_version_never_changes_its_content(database: Database) -> None:
    prior_id, _ = create(database)
    with pytest.raises(Conflict, match="new version") as caught:
        create(database, BODY | {"instructions": "Find others."})
    assert caught.value.facts == {"field": "version", "id": prior_id}


def test_tenants_have_their_own_names(database: Database) -> None:
    prior_id, _ = create(database)
    theirs, new = create(database, BODY | {"instructions": "Find others."}, tenant_id="umbrella")
    assert new
    with database.reading() as session:
        with pytest.raises(NotFound):
            priors.get(session, tenant_id="umbrella", prior_id=prior_id)
        assert [row.id for row in priors.list_priors(session, tenant_id="umbrella")] == [theirs]
        assert priors.list_priors(session, tenant_id="acme", after=prior_id) == []


def test_posted_by_many_at_once_it_is_still_one_row(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create(database), range(16)))
    assert len({prior_id for prior_id, _ in made}) == 1
    assert sum(new for _, new in made) == 1
