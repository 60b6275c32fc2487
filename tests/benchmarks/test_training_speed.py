"""The speed benchmark: its arithmetic, and that its contestants do the same work."""

import json
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import training_speed
from benchmarks.speed.contestants import PAPER, Contestant, Setting, build, ours, trl_installed, with_full_maps
from benchmarks.speed.full_maps import looped_hinge, vectorised_hinge
from benchmarks.speed.measure import Entrant, Memory, peak_memory
from benchmarks.speed.pace import Paced
from benchmarks.speed.ratios import Ratio, paired_ratio
from benchmarks.speed.record import Measured, load, save
from benchmarks.speed.report import Result, compare, last_line
from benchmarks.speed.scene import Scale, Scene, examples
from core.domain.training import Method

TOY = Scale(layers=2, width=32, heads=2, vocabulary=64, lora_rank=2)
CPU = torch.device("cpu")
SCENE = Scene(24, 0.25, checkpointing=False, scale=TOY)

seconds = st.floats(0.01, 100)


@settings(max_examples=20)
@given(st.lists(seconds, min_size=1, max_size=40), st.floats(0.1, 10))
def test_a_constant_factor_is_found_whatever_the_noise_both_share(base, factor):
    ratio = paired_ratio([factor * value for value in base], base)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((factor,) * 3)


@settings(max_examples=20)
@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=40))
def test_the_interval_holds_the_median_and_stays_among_the_ratios(pairs):
    ours_, base = zip(*pairs, strict=True)
    ratio = paired_ratio(ours_, base)
    ratios = [a / b for a, b in pairs]
    assert min(ratios) <= ratio.low <= ratio.median <= ratio.high <= max(ratios)


def test_rounds_are_paired_before_the_median_is_taken():
    assert paired_ratio([1, 10, 100], [2, 10, 50]).median == 1.0
    assert paired_ratio([1, 10, 100], [50, 10, 2]).median != paired_ratio([1, 10, 100], [2, 10, 50]).high


def test_more_rounds_narrow_the_interval():
    few, many = ([1.0, 1.2] * n for n in (3, 60))
    width = [r.high - r.low for r in (paired_ratio(few, [1.0] * 6), paired_ratio([1.1] * 60 + many, [1.0] * 180))]
    assert width[1] < width[0]


@pytest.mark.parametrize("series", [([], []), ([1.0], [1.0, 2.0])])
def test_series_that_cannot_be_paired_are_refused(series):
    with pytest.raises(ValueError, match="paired"):
        paired_ratio(*series)


def test_a_target_is_met_by_the_lower_end():
    assert Ratio(1.2, 1.1, 1.3).meets(1.1)
    assert not Ratio(1.2, 1.1, 1.3).meets(1.09)


def first_loss(trainer):
    """Loss and gradients of the first batch, as the loop computes them."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    trainer.state.max_steps = 1
    batches, count = trainer.get_batch_samples(iter([trainer.data_collator(trainer.train_dataset[:2])]), 1, CPU)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batches[0], num_items_in_batch=count)
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_cat_and_both_kinds_of_full_maps_compute_the_same(tmp_path, share):
    scene = Scene(24, share, checkpointing=False, scale=TOY)
    losses = []
    for place, build_one in enumerate(
        (
            partial(ours, method=Method.CAT, objective=PAPER),
            partial(with_full_maps, loss=vectorised_hinge),
            partial(with_full_maps, loss=looped_hinge),
        )
    ):
        losses.append(first_loss(build_one(Setting(scene, 1, tmp_path / str(place), CPU))))
    plain, _ = first_loss(build(Contestant.SFT, Setting(scene, 1, tmp_path / "sft", CPU)))
    assert losses[0][0] > plain + 0.1  # there is an attention loss to agree on
    for loss, gradients in losses[1:]:
        torch.testing.assert_close(loss, losses[0][0], rtol=1e-5, atol=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, losses[0][1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not trl_installed(), reason="needs the extra benchmarks")
def test_trl_computes_the_loss_of_plain_fine_tuning(tmp_path):
    plain, _ = first_loss(build(Contestant.SFT, Setting(SCENE, 1, tmp_path / "sft", CPU)))
    trl = build(Contestant.TRL, Setting(SCENE, 1, tmp_path / "trl", CPU))
    loss, _ = first_loss(trl)
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-6)


def test_examples_are_of_one_shape_and_rows_see_what_is_before_them():
    for example in examples(SCENE, 5):
        assert len(example.ids) == 24
        assert len(example.row_positions) == SCENE.rows == 6
        for row, (first, last) in zip(
            example.row_positions, zip(example.column_starts, example.column_starts[1:], strict=False), strict=True
        ):
            columns = example.columns[first:last]
            assert 5 <= len(columns) <= 15
            assert columns.max() <= row < 23


def test_steps_are_made_one_at_a_time(tmp_path):
    trainer = build(Contestant.CAT, Setting(SCENE, 5, tmp_path, CPU))
    paced = Paced(trainer)
    assert trainer.state.global_step == 1
    assert all(paced.step() > 0 for _ in range(3))
    assert trainer.state.global_step == 4
    paced.stop()
    assert not [*tmp_path.glob("checkpoints/*")]


def test_a_loop_that_fails_or_ends_says_so(tmp_path):
    paced = Paced(build(Contestant.EAGER, Setting(SCENE, 1, tmp_path / "short", CPU)))
    paced.step()
    with pytest.raises(RuntimeError, match="no more steps"):
        paced.step()
    broken = build(Contestant.EAGER, Setting(SCENE, 1, tmp_path / "broken", CPU))
    broken.data_collator = lambda batch: batch[2]
    with pytest.raises(IndexError):
        Paced(broken)


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own():
    memory = peak_memory(SCENE, Entrant(Contestant.SFT, 0.0), device=CPU)
    assert memory.idle < memory.loaded <= memory.peak
    assert Memory(10, 30, 100).above_idle == 90
    assert Memory(10, 30, 100).above_model == 70


def result(contestant, *, length=1024, share=0.1, ratio=1.0, **fields):
    one = Ratio(ratio, ratio, ratio)
    return Result(length, False, share, contestant, 30, 1.0, one, one, **fields)


def test_the_last_line_is_about_1024_tokens():
    results = [
        result(Contestant.CAT, ratio=1.07, memory=1.01),
        result(Contestant.CAT, share=0.5, ratio=1.2),
        result(Contestant.CAT, length=64, share=0.02, ratio=9),
        result(Contestant.PUBLISHED, ratio=1.8),
        result(Contestant.PUBLISHED, share=0.5, ratio=7),
    ]
    assert last_line(results) == {
        "time_ratio": {"0.02": None, "0.10": 1.07, "0.50": 1.2},
        "memory_ratio": {"0.02": None, "0.10": 1.01, "0.50": None},
        "published_over_cat_time": 1.8,
    }


def quick(path, *more):
    asked = [
        "--quick",
        "--rows",
        "0.1",
        "--steps",
        "2",
        "--no-memory",
        "--contestants",
        "published",
        "--out",
        str(path),
    ]
    training_speed.main([*asked, *more])
    return json.loads(path.with_suffix(".json").read_text())


def test_the_command_prints_a_table_and_writes_its_files(tmp_path, capsys):
    written = quick(tmp_path / "speed", "--lengths", "16")
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line.keys() == {"time_ratio", "memory_ratio", "published_over_cat_time"}
    assert [one["contestant"] for one in written["results"]] == ["sft", "cat", "published"]
    assert [one["time"] for one in written["results"] if one["contestant"] == "sft"] == [
        {"median": 1, "low": 1, "high": 1}
    ]
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_goes_on_where_the_last_one_stopped(tmp_path, capsys, monkeypatch):
    path = tmp_path / "speed"
    whole = training_speed.rounds

    def stopped(*args, **kwargs):
        yield next(whole(*args, **kwargs))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_speed, "rounds", stopped)
        with pytest.raises(KeyboardInterrupt):
            quick(path, "--lengths", "16")
    first = json.loads(path.with_suffix(".json").read_text())["scenes"][0]["rounds"]
    assert len(first) == 1
    second = quick(path, "--lengths", "16,24")["scenes"]
    assert [(scene["length"], len(scene["rounds"])) for scene in second] == [(16, 2), (24, 2)]
    assert second[0]["rounds"][0] == first[0]
    monkeypatch.setattr(training_speed, "rounds", None)  # nothing is left to measure
    assert quick(path, "--lengths", "24")["scenes"] == second
    assert "has its 2 rounds" in capsys.readouterr().out


ENTRANTS = [Entrant(Contestant.SFT, 0.0), Entrant(Contestant.CAT, 0.1), Entrant(Contestant.CAT, 0.5)]


def test_what_was_measured_is_read_as_it_was_written(tmp_path):
    one = Measured(64, False, {"clock": "cpu"}, ENTRANTS, [[1.0, 2.0, 4.0]], [0.5], [Memory(1, 2, 3)])
    save(tmp_path / "speed.json", [one], more=1)
    assert load(tmp_path / "speed.json") == {(64, False): one}
    assert load(tmp_path / "none.json") == {}
    assert [p.name for p in tmp_path.iterdir()] == ["speed.json"]
    assert "[ 1.0, 2.0, 4.0 ]" in (tmp_path / "speed.json").read_text()


def test_only_rounds_of_the_same_kind_stand_together():
    one = Measured(64, False, {"clock": "cpu"}, ENTRANTS, [[1.0, 1.0, 1.0]])
    assert one.goes_on_with(Measured(64, False, {"clock": "cpu"}, ENTRANTS))
    assert not one.goes_on_with(Measured(64, False, {"clock": "wall"}, ENTRANTS))
    assert not one.goes_on_with(Measured(64, False, {"clock": "cpu"}, ENTRANTS[:2]))
    assert one.is_whole(1, memory=False)
    assert not one.is_whole(2, memory=False)
    assert not one.is_whole(1, memory=True)


def test_a_scene_is_compared_share_by_share():
    memories = [Memory(1, 2, 11), Memory(1, 2, 21), Memory(1, 2, 31)]
    one = Measured(64, False, {}, ENTRANTS, [[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]], [], memories)
    found = {(r.contestant, r.share): (r.time.median, r.time_over_cat.median, r.memory) for r in compare(one)}
    assert found == {
        (Contestant.SFT, 0.1): (1, 0.5, 1), (Contestant.SFT, 0.5): (1, 0.25, 1),
        (Contestant.CAT, 0.1): (2, 1, 2), (Contestant.CAT, 0.5): (4, 1, 3),
    }  # fmt: skip


def test_pieces_of_the_grid_share_a_file_and_lesser_scenes_have_their_own():
    asked = (
        "",
        "--lengths 64,512",
        "--clock cpu --checkpointing no",
        "--steps 40",
        "--steps 9",
        "--rows 0.1",
        "--no-memory",
    )
    names = {text: training_speed._options(text.split()).out.name for text in asked}
    assert [*names.values()] == ["training_speed"] * 4 + ["training_speed-part"] * 3


def test_the_default_is_the_whole_grid():
    options = training_speed._options([])
    assert [*options.lengths] == [64, 512, 1024, 2048]
    assert options.rows == [0.02, 0.1, 0.5]
    assert options.checkpointing == [False, True]
    assert options.contestants == list(Contestant)
    assert options.steps >= 30
