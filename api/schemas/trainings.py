"""Training jobs on the wire."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator

from api.schemas.fields import Body, Id, Split, Text
from api.schemas.settings_schema import schema_of
from core.domain.training import ObjectiveConfig, TrainingConfig

_CONFIG = schema_of(TrainingConfig, {"objective": schema_of(ObjectiveConfig)})


class LabelsIn(Body):
    """Where the relations come from: annotation jobs, the later ones first, or the dataset itself."""

    annotation_jobs: list[Id] = Field([], max_length=100)
    dataset: bool = Field(False, description="Those that were posted with the examples.")

    @model_validator(mode="after")
    def _one_of_both(self) -> "LabelsIn":
        if bool(self.annotation_jobs) == self.dataset:
            raise ValueError('give either {"annotation_jobs": ["..."]} or {"dataset": true}')
        return self


class TrainingJobIn(Body):
    """Fine-tune a base model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset_id": "ds_01jd",
                    "base_model": "builtin:small",
                    "labels": {"annotation_jobs": ["an_01jd"]},
                    "eval_splits": ["iid", "ood"],
                    "config": {"method": "cat", "epochs": 6, "lora_rank": 16},
                }
            ]
        }
    )

    dataset_id: Id
    base_model: Text = Field(max_length=200, description="By the name it has in the service's settings.")
    labels: LabelsIn = Field(LabelsIn(dataset=True), description="Pinned: what they are now is what is trained on.")
    train_split: Split = "train"
    eval_splits: list[Split] = Field([], max_length=100)
    # Read by core.domain.training, which also knows the ranges; only the schema is made here.
    config: Annotated[dict[str, Any], WithJsonSchema(_CONFIG)] = Field({}, description="Every field may be left out.")
    name: Text = Field("", max_length=200)
    dry_run: bool = Field(
        False,
        description="Train nothing: count tokens, rows and steps, and measure the memory and seconds of a step.",
    )
