"""`python -m trainer`: exit status and events."""

import errno
import json
import signal
import threading

import pytest
from torch.distributed import DistBackendError

from core.domain.run_folder import EXIT_DISK_FULL, EXIT_FAILED, EXIT_FINISHED
from core.domain.training import Method, TrainingConfig
from tests.trainer.memory_errors import OUT_OF_MEMORY
from tests.trainer.runs import events_of, run_folder, write_examples
from trainer import __main__ as command
from trainer import events, process
from trainer.__main__ import main
from trainer.process import sole_trainer

STOPS = signal.SIGTERM, signal.SIGINT
CONFIG = TrainingConfig(epochs=1, batch_size=8, lora_rank=4, method=Method.SFT)


def test_a_run_leaves_events_and_an_adapter(tmp_path):
    folder = run_folder(tmp_path / "run", CONFIG)
    assert main([str(folder)]) == EXIT_FINISHED
    kinds = [event["type"] for event in events_of(folder)]
    assert kinds == ["plan", "step", "checkpoint", "evaluation", "finished"]
    finished = events_of(folder)[-1]
    assert finished["metrics"]["ood"].keys() >= {"accuracy", "balanced_accuracy", "majority"}
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()


def test_plan_trains_nothing(tmp_path, capsys):
    folder = run_folder(tmp_path / "run", TrainingConfig(epochs=2, batch_size=8))
    assert main([str(folder), "--plan"]) == EXIT_FINISHED
    assert [event["type"] for event in events_of(folder)] == ["plan"]
    assert events_of(folder)[0]["steps"] == 6
    assert events_of(folder)[0]["supervised_rows"] > 0
    assert events_of(folder)[0]["memory_bytes"] > 0
    assert events_of(folder)[0]["seconds_per_step"] > 0
    assert json.loads(capsys.readouterr().out).items() <= events_of(folder)[0].items()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "encoded.safetensors",
        "eval",
        "events.jsonl",
        "run.lock",
        "train.jsonl",
    ]


@pytest.mark.parametrize(("options", "asked"), [((), True), (("--plan",), False)], ids=["run", "plan"])
def test_only_a_run_saves_before_it_stops(tmp_path, options, asked):
    handlers = [signal.getsignal(number) for number in STOPS]
    main([str(run_folder(tmp_path / "run", CONFIG)), *options])
    assert ([signal.getsignal(number) for number in STOPS] != handlers) == asked


def break_config(folder):
    (folder / "config.json").write_text("{")


def break_field(folder):
    config = json.loads((folder / "config.json").read_text())
    config["training"]["epochs"] = 0
    (folder / "config.json").write_text(json.dumps(config))


def break_base(folder):
    config = json.loads((folder / "config.json").read_text())
    config["base"]["source"] = str(folder / "nowhere")
    (folder / "config.json").write_text(json.dumps(config))


def break_line(folder):
    with (folder / "train.jsonl").open("a") as file:
        file.write("{\n")


def remove_train(folder):
    (folder / "train.jsonl").unlink()


def empty_train(folder):
    write_examples(folder / "train.jsonl", [])


def break_encoding(folder):
    with (folder / "train.jsonl").open("ab") as file:
        file.write(b'{"input": "\xff", "target": "a"}\n')


def break_split(folder):
    (folder / "eval" / "ood.jsonl").write_text("[1]\n")


def empty_split(folder):
    (folder / "eval" / "ood.jsonl").write_text("")


def shorten(folder):
    config = json.loads((folder / "config.json").read_text())
    config["training"]["max_length"] = 8
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (break_encoding, "invalid_input"),
        (break_split, "invalid_input"),
        (empty_split, "invalid_input"),
        (break_config, "invalid_input"),
        (break_field, "invalid_input"),
        (break_base, "base_model_missing"),
        (break_line, "invalid_input"),
        (remove_train, "not_found"),
        (empty_train, "invalid_input"),
    ],
)
def test_what_is_wrong_is_told_as_an_event(tmp_path, harm, code, capsys):
    folder = run_folder(tmp_path / "run", CONFIG)
    harm(folder)
    assert main([str(folder)]) == EXIT_FAILED
    *plans, event = events_of(folder)
    assert (event["type"], event["code"]) == ("failed", code)
    assert [plan["examples"] for plan in plans] == ([0] if harm is empty_train else [])
    assert code in capsys.readouterr().err


def test_what_is_too_long_is_refused_with_a_plan_that_counts_it(tmp_path):
    folder = run_folder(tmp_path / "run", CONFIG)
    shorten(folder)
    for arguments in ([str(folder)], [str(folder), "--plan"]):
        assert main(arguments) == EXIT_FAILED
        plan, failed = events_of(folder)[-2:]
        assert (plan["type"], failed["code"]) == ("plan", "effect_cut_off")
        assert plan["dropped_examples"] == failed["facts"]["examples"] == 24
        assert plan["cut_effects"] == failed["facts"]["cut_effects"] == 24
        assert 8 < plan["length_p50"] <= plan["length_p90"] <= plan["longest"]


@pytest.mark.parametrize(
    ("error", "processes", "code"),
    [
        *((error, 1, "out_of_memory") for error in OUT_OF_MEMORY),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"), 2, "process_lost"),
        (DistBackendError("NCCL communicator was aborted"), 2, "process_lost"),
        (RuntimeError("gloo"), 1, "internal"),
        (RuntimeError("shapes differ"), 2, "internal"),
    ],
)
def test_what_libraries_say_is_told_in_our_codes(tmp_path, monkeypatch, error, processes, code):
    folder = run_folder(tmp_path / "run", CONFIG)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(command, "train", fail)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert main([str(folder)]) == EXIT_FAILED
    [event] = events_of(folder)
    assert (event["type"], event["code"]) == ("failed", code)


def test_a_disk_too_full_to_say_so_has_a_status_of_its_own(tmp_path, monkeypatch, capsys):
    folder = run_folder(tmp_path / "run", CONFIG)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(events, "_write_whole", full)
    assert main([str(folder)]) == EXIT_DISK_FULL
    assert events_of(folder) == []
    assert "disk_full: cannot write an event: No space left on device" in capsys.readouterr().err


def test_a_bug_is_told_as_internal_with_its_traceback_in_the_log_only(tmp_path, monkeypatch, capsys):
    folder = run_folder(tmp_path / "run", CONFIG)

    def bug(*args, **kwargs):
        raise ZeroDivisionError("user text")

    monkeypatch.setattr(command, "train", bug)
    assert main([str(folder)]) == EXIT_FAILED
    [event] = events_of(folder)
    assert (event["code"], event["facts"]) == ("internal", {"error": "ZeroDivisionError"})
    assert "user text" not in json.dumps(event)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == EXIT_FAILED
    assert "no folder" in capsys.readouterr().err


def test_a_second_trainer_in_a_folder_refuses_and_says_nothing_in_the_first_ones_events(tmp_path, monkeypatch, capsys):
    folder = run_folder(tmp_path / "run", CONFIG)
    monkeypatch.setattr(process, "_PATIENCE", 0.0)
    with sole_trainer(folder):
        assert main([str(folder)]) == EXIT_FAILED
        assert main([str(folder), "--plan"]) == EXIT_FAILED
    assert "run_busy: another trainer is at work in" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "eval", "run.lock", "train.jsonl"]
    assert main([str(folder), "--plan"]) == EXIT_FINISHED


def test_a_trainer_waits_for_one_that_is_about_to_be_gone(tmp_path):
    folder = run_folder(tmp_path / "run", CONFIG)
    held = sole_trainer(folder)
    held.__enter__()
    threading.Timer(0.3, held.__exit__, (None, None, None)).start()
    assert main([str(folder), "--plan"]) == EXIT_FINISHED


def test_a_folder_that_cannot_be_written_is_told(tmp_path, capsys):
    folder = run_folder(tmp_path / "run", CONFIG)
    (folder / "run.lock").mkdir()
    assert main([str(folder)]) == EXIT_FAILED
    assert "cannot write its lock: Is a directory" in capsys.readouterr().err
