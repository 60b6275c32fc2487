"""The annotator without the service.

python -m annotator label IN.jsonl --prior prior.yaml --teacher NAME --dry-run
python -m annotator label IN.jsonl --prior prior.yaml --teacher NAME --out OUT.jsonl [--budget-usd 5]
python -m annotator ground PUBLISHED.jsonl --report
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from annotator.cache import SqliteCache
from annotator.importer import ground_important, read_texts
from annotator.jsonl import read_examples, read_records
from annotator.label import LabelCounts, label_file
from annotator.plan import LabelPlan, plan_labels
from annotator.prior import check_prior, load_prior
from annotator.purse import SqlitePurse
from annotator.report import GroundingReport, report_on
from core.domain.annotation import TeacherConfig
from core.domain.relations import relation_to_json
from core.domain.spending import Budget, Cost, nano_usd, usd
from core.errors import CausewayError, InvalidInput
from core.settings import Settings

EXIT_BUDGET = 3  # stopped because its budget is spent; 2 is argparse's


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it went well, 1 or EXIT_BUDGET with one line on stderr when not."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (CausewayError, OSError) as exc:
        print(f"annotator: {exc}", file=sys.stderr)
    except KeyboardInterrupt:
        print("annotator: stopped; the same command goes on from here", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m annotator", description="Label and ground causal relations.")
    commands = parser.add_subparsers(required=True)
    label = commands.add_parser("label", help="label a file of examples with a prior and a teacher")
    label.add_argument("source", type=Path, metavar="IN.jsonl")
    label.add_argument("--prior", type=Path, required=True, metavar="P.yaml")
    label.add_argument("--teacher", default="rule", help="its name in CAUSEWAY_TEACHERS__NAME__*; default: rule")
    label.add_argument("--out", type=Path, metavar="OUT.jsonl", help="needed without --dry-run")
    label.add_argument("--dry-run", action="store_true", help="show prompts, tokens and cost; ask nobody")
    label.add_argument("--cache", type=Path, help="SQLite file of paid replies; default: OUT.jsonl.cache")
    over_all = "over all runs with this --out; where it ends, the command ends with status 3 and can go on later"
    label.add_argument("--budget-tokens", type=int, metavar="N", help=f"most of prompts and replies, {over_all}")
    label.add_argument("--budget-usd", type=float, metavar="USD", help=f"most that calls may cost, {over_all}")
    label.set_defaults(run=_label)
    ground = commands.add_parser("ground", help='ground a file in the published format ("important")')
    ground.add_argument("source", type=Path, metavar="FILE.jsonl")
    ground.add_argument("--report", action="store_true", help="print counts instead of the grounded examples")
    ground.set_defaults(run=_ground)
    return parser


def _label(options: argparse.Namespace) -> int:
    prior = load_prior(options.prior.read_text(encoding="utf-8"))
    check_prior(prior)
    config = _teacher(options.teacher)
    if options.dry_run:
        return _show_plan(plan_labels(prior, config, read_examples(options.source)))
    if options.out is None:
        raise InvalidInput("label needs --out, or --dry-run", field="out")
    budget = _budget(options, config)
    console = Console(stderr=True)
    cache = SqliteCache(options.cache or options.out.with_name(options.out.name + ".cache"))
    purse = SqlitePurse(options.out.with_name(options.out.name + ".spent"), config, budget)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("labelling", total=sum(1 for _ in read_records(options.source)))
            counts = asyncio.run(
                label_file(
                    options.source,
                    options.out,
                    prior=prior,
                    config=config,
                    cache=cache,
                    purse=purse,
                    on_progress=lambda so_far: progress.update(bar, completed=so_far.done),
                )
            )
    finally:
        cache.close()
        purse.close()
    print(json.dumps(_summary(counts, config, purse.spent)))
    if counts.exhausted:
        print(_out_of_money(purse.spent, counts), file=sys.stderr)
        return EXIT_BUDGET
    return 0


def _budget(options: argparse.Namespace, config: TeacherConfig) -> Budget:
    tokens, dollars = options.budget_tokens, options.budget_usd
    if tokens is not None and tokens < 1:
        raise InvalidInput("--budget-tokens must be at least 1", field="budget_tokens")
    if dollars is not None and not 1e-6 <= dollars <= 1e6:
        raise InvalidInput("--budget-usd must be between 0.000001 and 1,000,000", field="budget_usd")
    if dollars is not None and not (config.prompt_price or config.completion_price):
        raise InvalidInput(f"teacher {config.name!r} has no prices: use --budget-tokens", field="budget_usd")
    return Budget(tokens, None if dollars is None else nano_usd(dollars))


def _out_of_money(spent: Cost, counts: LabelCounts) -> str:
    return (
        f"annotator: stopped at its budget after {counts.done} examples: {spent.tokens} tokens and "
        f"{usd(spent.nano_usd):.6f} USD are spent, and the next call may cost more than is left; "
        "the same command with a larger budget goes on from here"
    )


def _show_plan(plan: LabelPlan) -> int:
    for prompt in plan.prompts:
        for message in prompt:
            print(f"--- {message['role']}\n{message['content']}\n")
        print("=" * 80)
    print(json.dumps(plan.to_json()))
    return 0


def _summary(counts: LabelCounts, config: TeacherConfig, spent: Cost) -> dict[str, object]:
    """The last line of `label`: the outcomes add up to the examples; what is `spent` is so over all runs.

    That may be more than the teacher has reported: a call whose price nobody said counts for all it may have cost.
    """
    cost = counts.usage.prompt_tokens * config.prompt_price + counts.usage.completion_tokens * config.completion_price
    return {
        "examples": counts.done,
        "resumed": counts.resumed,
        "outcomes": dict(counts.outcomes),
        "relations": counts.relations,
        "unresolved": counts.unresolved,
        "prompt_tokens": counts.usage.prompt_tokens,
        "completion_tokens": counts.usage.completion_tokens,
        "usd": round(cost / 1e6, 6),
        "spent_tokens": spent.tokens,
        "spent_usd": round(usd(spent.nano_usd), 6),
        "exhausted": counts.exhausted,
    }


def _teacher(name: str) -> TeacherConfig:
    try:
        settings = Settings()
    except ValidationError as exc:
        raise InvalidInput(f"the CAUSEWAY_* settings do not fit: {exc.errors()[0]['loc']}", field="settings") from exc
    config = settings.teacher(name)
    if config is None:
        known = ", ".join(sorted(settings.teachers))
        raise InvalidInput(f"no teacher {name!r} in CAUSEWAY_TEACHERS__*; known are {known}", field="teacher")
    return config


def _ground(options: argparse.Namespace) -> int:
    if options.report:
        report = report_on(read_records(options.source))
        _print_table(report)
        print(json.dumps(report.to_json()))
        return 0
    for line in _grounded(options.source):
        print(line)
    return 0


def _grounded(source: Path) -> Iterator[str]:
    for record in read_records(source):
        texts = read_texts(record)
        if texts is None:
            continue
        relations, _ = ground_important(*texts, record.get("important"))
        known = dict(zip(("input", "target"), texts, strict=True))
        yield json.dumps(known | {"relations": [relation_to_json(r.relation) for r in relations]}, ensure_ascii=False)


def _print_table(report: GroundingReport) -> None:
    share = report.kept / report.edges if report.edges else 0.0
    rate = report.phrases / report.seconds if report.seconds else 0.0
    print(f"{report.examples} examples, {report.edges} edges: {report.kept} kept ({share:.1%}), {rate:,.0f} phrases/s")
    for name in ("folded", "fuzzy", "ambiguous"):
        print(f"  {name:20} {getattr(report, name):8}  of those kept")
    for reason, count in report.unresolved.items():
        print(f"  {reason:20} {count:8}")


if __name__ == "__main__":
    sys.exit(main())
