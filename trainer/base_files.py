"""Where the files of a base model are, and what it means when they, or the hub, do not give a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError

from core.domain.run_folder import BaseModelSpec
from core.errors import (
    BaseModelGated,
    BaseModelMissing,
    BaseModelUnavailable,
    BaseModelUnknown,
    DiskFull,
    HubUnreachable,
)
from trainer.base import SMALL, small_folder, small_revision
from trainer.checkpoints import NO_SPACE
from trainer.memory import is_out_of_memory

_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
_HUB_DUPLICATES = ["original/*", "onnx/*", "consolidated*"]  # the same weights in other formats


def locate(spec: BaseModelSpec) -> tuple[Path, str | None]:
    """The folder that holds the model's files, downloaded where needed, and its revision.

    Raises
    ------
    BaseModelMissing
        There is no such folder, or no config.json in it.
    BaseModelUnknown, BaseModelGated, HubUnreachable
        The hub has no such id or revision; it wants access to be asked for; it does not answer.
    DiskFull
        There is no space for what is downloaded or, of builtin:small, made.
    """
    if spec.source == SMALL:
        return small_folder(), small_revision()
    path = Path(spec.source).expanduser()
    if (path / "config.json").is_file():
        return path, None
    if path.is_dir():
        missing = "the folder has no config.json; point it at a model saved with save_pretrained"
        raise unavailable(spec, missing, BaseModelMissing)
    if path.is_absolute() or spec.source.startswith(("./", "../", "~")):
        raise unavailable(spec, "there is no such folder", BaseModelMissing)
    snapshot = load(
        spec,
        lambda: snapshot_download(
            spec.source, revision=spec.revision, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_DUPLICATES
        ),
    )
    return Path(snapshot), Path(snapshot).name  # the hub's cache names a snapshot by its commit


def load(spec: BaseModelSpec, read: Callable[[], Any]) -> Any:
    """What `read` makes of the model's files, with the libraries' errors as ours. Raises all but BaseModelMissing."""
    try:
        return read()
    except GatedRepoError as exc:
        reason = "access to it is gated; ask for access on its page and set HF_TOKEN"
        raise unavailable(spec, reason, BaseModelGated) from exc
    except RevisionNotFoundError as exc:
        reason = f"it has no revision {spec.revision!r}; name a branch, tag or commit"
        raise unavailable(spec, reason, BaseModelUnknown) from exc
    except (RepositoryNotFoundError, HFValidationError) as exc:
        reason = (
            "it is neither a folder here nor a model the hub shows us; check the name, or set HF_TOKEN if it is private"
        )
        raise unavailable(spec, reason, BaseModelUnknown) from exc
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, ConnectionError) as exc:
        reason = "the hub cannot be reached and it is not in the cache; check the network, or name a local folder"
        raise unavailable(spec, reason, HubUnreachable) from exc
    except OSError as exc:
        if exc.errno in NO_SPACE:
            raise DiskFull(f"cannot download the base model {spec.name!r}: {exc.strerror}", base=spec.name) from exc
        raise _unloadable(spec, exc) from exc
    except (ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        if is_out_of_memory(exc) or isinstance(exc, torch.AcceleratorError):
            raise  # it says nothing about the files
        raise _unloadable(spec, exc) from exc


def unavailable(
    spec: BaseModelSpec, reason: str, kind: type[BaseModelUnavailable] = BaseModelUnavailable
) -> BaseModelUnavailable:
    """The error that says why there is no such model."""
    return kind(
        f"cannot load the base model {spec.name!r}: {reason}",
        base=spec.name,
        source=spec.source,
        revision=spec.revision,
    )


def _unloadable(spec: BaseModelSpec, exc: Exception) -> BaseModelUnavailable:
    return unavailable(spec, f"its files cannot be loaded ({type(exc).__name__}: {exc})")
