"""The model card of an adapter: what it is, how it was made, how good it is, how to load it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from core.domain.run_folder import RunConfig, run_to_json
from core.domain.training import Method, TrainingConfig
from trainer.base import SMALL

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as --max-lora-rank

_METHODS = {
    Method.SFT: "supervised fine-tuning: next-token loss on the target alone",
    Method.CAT: "Causal Attention Tuning: next-token loss on the target, and an attention objective that keeps the "
    "rows predicting an effect on its annotated causes (arXiv 2509.01535)",
}


def model_card(
    *, run: RunConfig, revision: str | None, metrics: Mapping[str, Mapping[str, float]], targets: Sequence[str]
) -> str:
    """README.md of an adapter folder, in Markdown. A function of its arguments alone."""
    training = run.training
    return f"""\
---
library_name: peft
tags: [lora, causeway, {training.method}]
---

# LoRA adapter for `{run.base.name}`

Trained by Causeway with {_METHODS[training.method]}.

| | |
|---|---|
| Base model | `{run.base.source}` |
| Base revision | {f"`{revision}`" if revision else "a local folder, without a revision"} |
| Method | `{training.method}` |
| LoRA | {_lora(training, targets)} |
| Training data | sha256 `{run.data_sha256 or "not stated"}` |
| Run | `{run.run_id or "not stated"}` |

## Metrics

{_table(metrics)}

`majority` is what always giving the commonest target would score.

## Loading it

{_first_step(run)}With peft:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{_loadable(run)}"{_pinned(run, revision)})
tokenizer = AutoTokenizer.from_pretrained("ADAPTER_DIR")
model = PeftModel.from_pretrained(base, "ADAPTER_DIR")
```

With vLLM:

```sh
vllm serve {_loadable(run)} --enable-lora --max-lora-rank {vllm_rank(training.lora_rank)} \\
    --lora-modules adapter=ADAPTER_DIR
```

`manifest.json` holds the sha256 and size of every file.

## Configuration

```json
{_configuration(run)}
```
"""


def vllm_rank(rank: int) -> int:
    """The smallest --max-lora-rank that serves an adapter of this rank."""
    return next(limit for limit in VLLM_RANKS if rank <= limit)


def _lora(training: TrainingConfig, targets: Sequence[str]) -> str:
    leaves = ", ".join(f"`{leaf}`" for leaf in sorted({name.rsplit(".", 1)[-1] for name in targets}))
    scaled = " (rank-stabilised: scaled by alpha / sqrt(rank))" if training.lora_rslora else ""
    return f"rank {training.lora_rank}, alpha {training.lora_alpha}{scaled}, on {leaves}"


def _table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    if not metrics:
        return "Not evaluated."
    names = sorted({name for split in metrics.values() for name in split})
    lines = [["split", *names], ["---"] * (len(names) + 1)]
    lines += [[split, *(_cell(metrics[split].get(name)) for name in names)] for split in sorted(metrics)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and value > 1 else f"{value:.4f}"


def _first_step(run: RunConfig) -> str:
    if run.base.source != SMALL:
        return ""
    return f"""\
`{SMALL}` is a seeded toy that is not on any hub. Write it out first:

```sh
causeway base export {SMALL} small
```

"""


def _configuration(run: RunConfig) -> str:
    """The whole config, with the objective that a preset stands for written out."""
    config = run_to_json(run)
    config["training"]["objective"] = asdict(run.training.attention) if run.training.attention else None
    return json.dumps(config, indent=2, sort_keys=True)


def _loadable(run: RunConfig) -> str:
    return "small" if run.base.source == SMALL else run.base.source


def _pinned(run: RunConfig, revision: str | None) -> str:
    return f', revision="{revision}"' if revision and run.base.source != SMALL else ""
