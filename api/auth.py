"""The bearer key of a request. Whom it belongs to is decided in core/keys.py."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from core.errors import Unauthenticated

_scheme = HTTPBearer(
    scheme_name="Bearer",
    bearerFormat="cw_<prefix>_<secret>",
    description="An API key, made by `causeway keys create`.",
    auto_error=False,  # so that a missing key and a wrong one read the same
)


def bearer(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]) -> str:
    """The key as it was sent. Raises Unauthenticated when there is none."""
    if credentials is None:
        raise Unauthenticated("no valid API key: send it as 'Authorization: Bearer cw_...'")
    return credentials.credentials
