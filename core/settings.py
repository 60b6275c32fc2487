"""Everything that is configured from outside, read from CAUSEWAY_* variables. Built at entry points only.

Nested names are joined by two underscores: CAUSEWAY_DATABASE__URL, CAUSEWAY_TEACHERS__GPT__MODEL. `.env.example` lists
all of them.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.domain.annotation import TeacherConfig
from core.domain.run_folder import BaseModelSpec

BUILTIN_SMALL = "builtin:small"


class DatabaseSettings(BaseModel):
    """Where the truth lives. postgresql+psycopg://... or sqlite:///path."""

    url: str = "sqlite:///var/causeway.db"
    pool_size: int = Field(10, ge=1, le=200, description="connections kept open per process")


class BrokerSettings(BaseModel):
    """Where nudges travel. redis://... or memory:// (inside one process only)."""

    url: str = "memory://"
    namespace: str = Field("causeway", pattern=r"^[a-z0-9_-]{1,40}$", description="keeps apart services on one Redis")


class StorageSettings(BaseModel):
    """Where artefacts and run folders lie."""

    blobs: Path = Path("var/blobs")
    runs: Path = Path("var/runs")
    spool: Path = Path("var/spool")


class TeacherSettings(BaseModel):
    """One teacher that requests may name. Its key goes to its own base_url and nowhere else."""

    kind: Literal["rule", "openai"] = "openai"
    base_url: str = ""
    model: str = ""
    api_key: SecretStr = SecretStr("")
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(2048, ge=16, le=32_768)
    concurrency: int = Field(16, ge=1, le=1024)
    connect_timeout: float = Field(5.0, gt=0, le=60)
    read_timeout: float = Field(90.0, gt=0, le=600)
    max_attempts: int = Field(6, ge=1, le=50)
    deadline: float = Field(300.0, gt=0, le=3600)
    requests_per_minute: float = Field(0.0, ge=0, description="0: as many as the endpoint takes")
    tokens_per_minute: float = Field(0.0, ge=0, description="prompts and replies together; 0: as many as it takes")
    prompt_price: float = Field(0.0, ge=0, description="USD for a million tokens")
    completion_price: float = Field(0.0, ge=0, description="USD for a million tokens")
    batch_discount: float = Field(0.5, ge=0, le=1, description="of both prices, for questions in a batch")
    batch_lines: int = Field(50_000, ge=1, le=1_000_000, description="questions in a batch, at most")
    batch_bytes: int = Field(200_000_000, ge=10_000, le=2_000_000_000, description="of a batch's file, at most")


class BaseModelSettings(BaseModel):
    """One base model that requests may name: a local folder, or a hub id with a revision."""

    source: str
    revision: str | None = None


class JobSettings(BaseModel):
    """The rhythm of jobs, in seconds."""

    lease: float = Field(60.0, gt=0)
    heartbeat: float = Field(15.0, gt=0)
    relay: float = Field(15.0, gt=0)
    slice: float = Field(60.0, gt=0)
    batch_poll: float = Field(30.0, gt=0, le=3600, description="between looks at batches that a teacher works on")
    max_attempts: int = Field(3, ge=1, description="claims that ended in a lost lease before a job fails")
    annotation_concurrency: int = Field(4, ge=1, le=256, description="annotation jobs a worker process serves at once")
    training_concurrency: int = Field(1, ge=1, le=64, description="trainer processes a training worker runs at once")
    training_processes: int = Field(1, ge=1, le=64, description="of one training, each a GPU; more than 1 by torchrun")
    keep_failed_runs: float = Field(7 * 86_400.0, ge=0, description="how long the run folder of a failed job stays")
    cancel_grace: float = Field(60.0, gt=0, description="from SIGTERM to SIGKILL of a trainer")


class ApiSettings(BaseModel):
    """Where `python -m api` listens."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)


class LimitSettings(BaseModel):
    """What one request may cost."""

    line_bytes: int = Field(1_000_000, ge=1_000)
    upload_bytes: int = Field(2_000_000_000, ge=1_000)
    upload_rows: int = Field(1_000_000, ge=1)
    body_bytes: int = Field(1_000_000, ge=1_000)
    relations_per_example: int = Field(500, ge=1)
    epochs: int = Field(100, ge=1)


class Settings(BaseSettings):
    """The whole configuration of a process."""

    model_config = SettingsConfigDict(
        env_prefix="CAUSEWAY_", env_nested_delimiter="__", extra="forbid", validate_default=True
    )

    database: DatabaseSettings = DatabaseSettings()
    broker: BrokerSettings = BrokerSettings()
    storage: StorageSettings = StorageSettings()
    teachers: dict[str, TeacherSettings] = Field(default_factory=dict)
    base_models: dict[str, BaseModelSettings] = Field(default_factory=dict)
    jobs: JobSettings = JobSettings()
    limits: LimitSettings = LimitSettings()
    api: ApiSettings = ApiSettings()
    cors_origins: list[str] = Field(default_factory=list)
    log_level: str = "INFO"
    log_json: bool | None = Field(None, description="unset: JSON unless the log goes to a terminal")

    @field_validator("teachers")
    @classmethod
    def _with_rule_teacher(cls, teachers: dict[str, TeacherSettings]) -> dict[str, TeacherSettings]:
        return {"rule": TeacherSettings(kind="rule")} | teachers

    @field_validator("base_models")
    @classmethod
    def _with_builtin_base(cls, models: dict[str, BaseModelSettings]) -> dict[str, BaseModelSettings]:
        return {BUILTIN_SMALL: BaseModelSettings(source=BUILTIN_SMALL)} | models

    def teacher(self, name: str) -> TeacherConfig | None:
        """The teacher of that name as the annotator wants it, None when there is none."""
        found = self.teachers.get(name)
        if found is None:
            return None
        values = found.model_dump(exclude={"api_key"})
        return TeacherConfig(name=name, api_key=found.api_key.get_secret_value(), **values)

    def base_model(self, name: str) -> BaseModelSpec | None:
        """The base model of that name, None when there is none."""
        found = self.base_models.get(name)
        return None if found is None else BaseModelSpec(name, found.source, found.revision)
