"""The last gate before a run counts as finished: a fresh process loads what it exported and must find what it trained.

The process is `python -m trainer.reload`, with peft, transformers and the model's stock attention alone.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from core.domain.run_folder import BaseModelSpec
from core.errors import NothingLearned, ReloadDiffers, ReloadFailed
from trainer.adapter import CONFIG, load_adapter, verify_folder
from trainer.admission import TOLERANCE
from trainer.model import a_few, load_base

_LENGTH = 24  # tokens of the probe


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
    """
    training = model.training
    model.eval()
    trained = _logits(model)
    model.train(training)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "logits.safetensors"
        command = [sys.executable, "-W", "error::UserWarning", "-m", "trainer.reload"]
        command += ["--base", base.source, "--precision", precision, "--out", str(out)]
        command += ["--adapter" if (folder / CONFIG).is_file() else "--model", str(folder)]
        command += ["--revision", base.revision] if base.revision else []
        command += ["--four-bit"] if four_bit else []
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ReloadFailed(f"what was exported does not load in a fresh process: {last}")
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


def _logits(model: PreTrainedModel | PeftModel) -> Tensor:
    """(T, V) logits of a probe that spreads over the vocabulary, fp32 on the CPU."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(1, _LENGTH + 1, device=model.device)[None] * 7919 % vocabulary
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0].float().cpu().contiguous()


def main(arguments: list[str] | None = None) -> int:
    """The fresh process: write the logits of the base model alone and with the adapter."""
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
    save_file({"base": plain, "tuned": _logits(tuned_model)}, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
