"""The last gate before a run counts as finished: a fresh process loads what it exported and must find what it trained.

The process is `python -m trainer.reload`, with peft, transformers and the model's stock attention alone.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from core.domain.run_folder import BaseModelSpec
from core.errors import DiskFull, NothingLearned, OutOfMemory, ReloadDiffers, ReloadFailed
from trainer.adapter import CONFIG, load_adapter, verify_folder
from trainer.admission import TOLERANCE
from trainer.checkpoints import disk_errors
from trainer.memory import is_out_of_memory
from trainer.model import a_few, load_base
from trainer.process import stops_withheld
from trainer.tensors import save_tensors

_LENGTH = 24  # tokens of the probe
_WHAT = "what the gate compares"

# Exit statuses of the fresh process where the machine failed it, which says nothing about what was exported.
_NO_SPACE = 74
_NO_MEMORY = 71


def check_reload(
    model: PreTrainedModel | PeftModel, folder: Path, *, base: BaseModelSpec, precision: str, four_bit: bool = False
) -> None:
    """Load an exported adapter, or whole model, in a fresh process and compare its logits with those of `model`.

    Raises
    ------
    ReloadFailed
        It does not load without a warning, or not as exactly the weights that its config asks for.
    ReloadDiffers
        Its logits are not those of `model`.
    NothingLearned
        Its logits are those of the base model.
    DiskFull, OutOfMemory, TrainingFailed
        The check could not be made: there is no space beside `folder` for the logits of the fresh process, or no memory
        for its model.
    """
    training = model.training
    model.eval()
    trained = _logits(model)
    model.train(training)
    torch.cuda.empty_cache()  # what training has freed is the fresh process's to use; nothing without a GPU
    # Where there was space for what was exported, not where TMPDIR is; and never in the folder that is sealed.
    with disk_errors(_WHAT, folder.parent):
        scratch = tempfile.TemporaryDirectory(prefix=".gate-", dir=folder.parent)
    with scratch:
        out = Path(scratch.name) / "logits.safetensors"
        command = [sys.executable, "-W", "error::UserWarning", "-m", "trainer.reload"]
        command += ["--base", base.source, "--precision", precision, "--out", str(out)]
        command += ["--adapter" if (folder / CONFIG).is_file() else "--model", str(folder)]
        command += ["--revision", base.revision] if base.revision else []
        command += ["--four-bit"] if four_bit else []
        _require_success(_ended(command))
        found = load_file(out)
    scale = float(trained.abs().max())
    difference = float((found["tuned"] - trained).abs().max()) / scale
    if not difference <= TOLERANCE[model.dtype]:
        raise ReloadDiffers(
            f"reloaded, what was exported answers differently: logits are off by {difference:.1e} of the largest",
            difference=difference,
        )
    if torch.equal(found["tuned"], found["base"]):
        raise NothingLearned("what was exported does not change what its base model answers")


def _ended(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, whatever the group is told meanwhile: one cut off would pass for a refusal."""
    with stops_withheld():
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    with process:
        try:
            out, errors = process.communicate()
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def _require_success(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode == 0:
        return
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if done.returncode == _NO_SPACE:
        raise DiskFull(f"what was exported cannot be checked: {last}")
    if done.returncode == _NO_MEMORY:
        raise OutOfMemory(
            "what was exported cannot be checked: memory does not hold it a second time, in a fresh process; run again "
            "with more of it free, which goes on from the last checkpoint"
        )
    raise ReloadFailed(f"what was exported does not load in a fresh process: {last}")


def _logits(model: PreTrainedModel | PeftModel) -> Tensor:
    """(T, V) logits of a probe that spreads over the vocabulary, fp32 on the CPU."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(1, _LENGTH + 1, device=model.device)[None] * 7919 % vocabulary
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0].float().cpu().contiguous()


def main(arguments: list[str] | None = None) -> int:
    """The fresh process: write the logits of the base model alone and with the adapter. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trainer.reload", description="Logits of what was exported.")
    parser.add_argument("--base", required=True)
    parser.add_argument("--revision")
    tuned = parser.add_mutually_exclusive_group(required=True)
    tuned.add_argument("--adapter", type=Path)
    tuned.add_argument("--model", type=Path)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--four-bit", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        _write_logits(options)
    except DiskFull as error:
        print(error.message, file=sys.stderr)  # noqa: T201 - for check_reload, which reads the last line
        return _NO_SPACE
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return _NO_MEMORY
    return 0


def _write_logits(options: argparse.Namespace) -> None:
    spec = BaseModelSpec(options.base, options.base, options.revision)
    model = load_base(spec, precision=options.precision, four_bit=options.four_bit).model
    plain = _logits(model)
    tuned_model: PreTrainedModel | PeftModel
    if options.adapter:
        tuned_model = load_adapter(model, options.adapter)
    else:
        verify_folder(options.model)
        whole = BaseModelSpec(str(options.model), str(options.model))
        loaded = load_base(whole, precision=options.precision)  # raises where weights are missing
        if loaded.unexpected:  # transformers only logs it; in a base it is another head, in what we wrote a mistake
            raise ReloadFailed(f"it holds weights that its config has no place for: {a_few(loaded.unexpected)}")
        tuned_model = loaded.model
    logits = {"base": plain, "tuned": _logits(tuned_model)}
    with disk_errors(_WHAT, options.out.parent):
        save_tensors(logits, options.out)


if __name__ == "__main__":
    sys.exit(main())
