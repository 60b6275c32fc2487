"""Settings at the entry point, with errors that name the variable."""

from pydantic import ValidationError

from core.errors import InvalidInput
from core.settings import Settings


def load_settings() -> Settings:
    """The settings of this process.

    Raises
    ------
    InvalidInput
        Names the first variable that does not hold what it must; never its value, which may be a secret.
    """
    try:
        return Settings()
    except ValidationError as exc:
        first = exc.errors()[0]
        variable = "CAUSEWAY_" + "__".join(str(part).upper() for part in first["loc"])
        raise InvalidInput(f"{variable}: {first['msg']} (see .env.example)", field=variable) from exc
