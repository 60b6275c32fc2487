"""The picture of an answer's attention: right numbers, one panel an adapter and row, and what is said of them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from core.domain.annotation import Example
from core.domain.run_folder import RunConfig, example_to_json
from core.domain.training import TrainingConfig
from core.errors import InvalidInput
from tests.trainer.test_words import EXAMPLE, INPUT, SMALL
from tests.trainer.tokenizers_for_tests import tokenizer_of
from trainer.adapter import export_adapter
from trainer.look import main
from trainer.maps import attention_mass
from trainer.model import add_lora, load_base
from trainer.page import write_page
from trainer.panels import look, look_at
from trainer.picture import figure_of
from trainer.words import words_of


def test_numbers_are_those_of_attention_mass(small):
    panel = look("base", small.model, words_of(small.tokenizer, EXAMPLE))
    assert sum(panel.attention) == pytest.approx(1.0, abs=1e-5)
    assert panel.mass == pytest.approx(attention_mass(small.model, small.tokenizer, [EXAMPLE]), abs=1e-6)


@pytest.fixture
def adapters(small, tmp_path) -> dict[str, Path]:
    folders = {}
    for seed, name in enumerate(("first", "second")):
        config = TrainingConfig(seed=seed, lora_rank=2)
        model = add_lora(load_base(SMALL).model, config)
        with torch.no_grad():
            for parameter, weight in model.named_parameters():
                if ".lora_B." in parameter:
                    weight.fill_(0.3)
        folders[name] = tmp_path / name
        run = RunConfig(SMALL, config)
        export_adapter(model, small.tokenizer, folders[name], run=run, revision=None, metrics={})
    return folders


def test_one_panel_an_adapter_and_none_sees_another(adapters, tmp_path):
    data = tmp_path / "examples.jsonl"
    data.write_text(
        json.dumps(example_to_json(Example("Smoking: 1", "x"))) + "\n" + json.dumps(example_to_json(EXAMPLE))
    )
    first, second = adapters.values()

    def panels(*named: str) -> list[dict]:
        out = tmp_path / "attention.png"
        arguments = [part for adapter in named for part in ("--adapter", adapter)]
        numbers = tmp_path / "numbers.json"
        arguments += ["--base", "builtin:small", "--example", f"{data}:2", "--out", str(out), "--json", str(numbers)]
        assert main(arguments) == 0
        assert out.read_bytes().startswith(b"\x89PNG")
        out.unlink()
        return json.loads(numbers.read_text())["panels"]

    alone = panels(f"b={second}")
    together = panels(f"a={first}", str(second))
    assert [panel["name"] for panel in together] == ["a", "second"]
    assert together[1]["attention"] == alone[0]["attention"]
    assert together[0]["attention"] != together[1]["attention"]


def test_a_line_that_is_not_there_is_named(adapters, tmp_path, capsys):
    data = tmp_path / "examples.jsonl"
    data.write_text(json.dumps(example_to_json(EXAMPLE)))
    arguments = ["--base", "builtin:small", "--adapter", str(adapters["first"]), "--out", str(tmp_path / "a.png")]
    assert main([*arguments, "--example", f"{data}:2"]) == 1
    assert "has 1 examples, not 2" in capsys.readouterr().err


def test_heads_and_rows_are_those_of_the_full_maps(small):
    words = words_of(small.tokenizer, EXAMPLE)
    rows = [5, len(words.ids) - 1]
    heads = look_at("base", small.model, words, rows)
    assert heads.attention.shape == (2, 2, 4, len(words.labels))
    maps = _eager(words)  # (L, H, T, T)
    for place, row in enumerate(rows):
        for word in range(len(words.labels)):
            expected = maps[:, :, row, words.word_of_token == word].sum(-1)
            np.testing.assert_allclose(heads.attention[place, :, :, word], expected, atol=1e-6)
    one = heads.panel(row=0, layer=1, head=2)
    assert one.attention == pytest.approx(heads.attention[0, 1, 2].tolist())
    assert heads.panel().attention == pytest.approx(look("base", small.model, words).attention)


def _eager(words) -> np.ndarray:
    model = load_base(SMALL, attention="eager").model
    with torch.no_grad():
        maps = model(torch.from_numpy(words.ids).long()[None], output_attentions=True).attentions
    return torch.cat(maps).numpy()


EVIL = "Smoking: 1 </script><script>alert(1)</script> <img src=https://x.test/a> {{data}} Weight:"


@pytest.fixture
def page(adapters, tmp_path) -> str:
    out = tmp_path / "attention.html"
    asked = [str(adapters["first"]), "--text", EVIL, "--target", "<b>High</b> {{data}}", "--rows", "0", "-1"]
    asked += ["--layer", "1", "--head", "2"]
    assert main([*asked, "--out", str(out), "--json", str(tmp_path / "numbers.json")]) == 0
    return out.read_text()


def test_the_page_loads_nothing_and_a_text_cannot_leave_its_place(page):
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert "<b>" not in page
    assert "default-src 'none'" in page
    data = _data(page)
    outside = page.replace(re.search(r"<title>.*?</title>", page)[0], "")
    assert not re.search(r"(src|href)=|url\(|@import|https?:", outside.split('id="data">')[0])
    assert " ".join(data["words"]) == EVIL


def test_the_page_holds_base_and_adapter_row_by_row(page, tmp_path):
    data = _data(page)
    assert [model["name"] for model in data["models"]] == ["base", "adapter"]
    assert data["rows"] == [0, len(data["words"]) - 1]
    panels = json.loads((tmp_path / "numbers.json").read_text())["panels"]
    assert [(panel["row"], panel["name"]) for panel in panels[:2]] == [(0, "base"), (0, "adapter")]
    assert [panel["attention"][0] for panel in panels[:2]] == pytest.approx([1.0, 1.0])
    for model, panel in zip(data["models"], panels[2:], strict=True):
        attention = np.array(model["attention"])  # (R, L, H, W)
        assert attention.shape == (2, 2, 4, len(data["words"]))
        np.testing.assert_allclose(attention[-1, 1, 2] / data["scale"], panel["attention"], atol=1e-3)
        assert (attention[0, :, :, 0] == data["scale"]).all()  # the first word sees only itself
    assert data["models"][0]["attention"] != data["models"][1]["attention"]


def _data(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_an_adapter_is_drawn_beside_its_base_for_one_head(adapters, tmp_path):
    asked = [str(adapters["first"]), "--text", INPUT, "--layer", "1", "--head", "3", "--out", str(tmp_path / "a.png")]
    assert main([*asked, "--json", str(tmp_path / "n.json")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [panel["name"] for panel in json.loads((tmp_path / "n.json").read_text())["panels"]] == ["base", "adapter"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--layer", "2"], "there is no layer 2"),
        (["--head", "-1"], "there is no head -1"),
        (["--rows", "99"], "there is no word 99"),
        (["--out", "x.pdf"], "must end in"),
        (["--rows", *"012345678"], "at most 8 rows"),
        (["--out", "/nonexistent/x.png"], "there is no folder /nonexistent"),
        (["--json", "/nonexistent/x.json"], "there is no folder /nonexistent"),
        (["--revision", "main"], "--revision is of a --base"),
        (["--text", "   "], "there are no words"),
        (["--text", ""], "there are no words"),
        (["--example", "."], "cannot read ."),
    ],
)
def test_what_is_not_there_is_named(adapters, tmp_path, capsys, asked, told):
    text = [] if "--example" in asked else ["--text", INPUT]
    arguments = [str(adapters["first"]), *text, "--out", str(tmp_path / "a.png"), *asked]
    assert main(arguments) == 1
    errors = capsys.readouterr().err
    assert told in errors
    assert errors.count("\n") == 1


def test_what_cannot_be_written_is_named(adapters, tmp_path, capsys):
    (tmp_path / "a.png").mkdir()
    assert main([str(adapters["first"]), "--text", INPUT, "--out", str(tmp_path / "a.png")]) == 1
    assert "invalid_input: cannot write" in capsys.readouterr().err


def test_a_target_goes_with_a_text_alone(tmp_path, capsys):
    asked = ["--base", "builtin:small", "--example", "x.jsonl", "--target", "High", "--out", str(tmp_path / "a.png")]
    assert main(asked) == 1
    assert "--target is the answer to a --text" in capsys.readouterr().err


def test_a_text_without_a_token_before_the_answer_is_refused():
    with pytest.raises(InvalidInput, match="no token stands before the answer"):
        words_of(tokenizer_of("whole_words"), Example("gulls", ""))  # one unknown word with the answer


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_a_base_without_an_adapter_is_drawn_alone(tmp_path, suffix):
    out, numbers = tmp_path / f"a.{suffix}", tmp_path / "n.json"
    assert main(["--base", "builtin:small", "--text", INPUT, "--out", str(out), "--json", str(numbers)]) == 0
    assert out.is_file()
    assert [panel["name"] for panel in json.loads(numbers.read_text())["panels"]] == ["base"]


def test_no_adapter_that_was_named_is_left_out(adapters, tmp_path):
    numbers = tmp_path / "n.json"
    asked = [str(adapters["first"]), "--adapter", f"sft={adapters['second']}", "--text", INPUT]
    assert main([*asked, "--out", str(tmp_path / "a.png"), "--json", str(numbers)]) == 0
    panels = json.loads(numbers.read_text())["panels"]
    assert [panel["name"] for panel in panels] == ["base", "adapter", "sft"]
    assert panels[1]["attention"] != panels[2]["attention"]


def test_a_base_that_is_named_is_the_one_that_is_loaded(adapters, tmp_path, capsys):
    asked = [str(adapters["first"]), "--base", str(tmp_path / "none"), "--text", INPUT]
    assert main([*asked, "--out", str(tmp_path / "a.png")]) == 1
    assert "base_model_missing" in capsys.readouterr().err


def _drawn(small, example: Example, rows: list[int]) -> tuple[list[str], Figure]:
    """The titles of the panels, and all of the figure, of the base beside itself."""
    words = words_of(small.tokenizer, example)
    heads = [look_at(name, small.model, words, rows) for name in ("base", "adapter")]
    panels = [(f"at {row}", [one.panel(row=place) for one in heads]) for place, row in enumerate(rows)]
    figure = figure_of(words, panels, title="title", scale="scale")
    return [axis.get_title(loc="left") for axis in figure.axes], figure


def test_causes_are_spoken_of_where_there_are_some(small):
    titles, figure = _drawn(small, EXAMPLE, [words_of(small.tokenizer, EXAMPLE).answer_row])
    assert [re.sub(r"\d+", "9", title) for title in titles] == [
        f"{name}:  9% of the attention is on the causes" for name in ("base", "adapter")
    ]
    assert figure.axes[0].get_legend() is not None


@pytest.mark.parametrize(("example", "row"), [(Example(INPUT, "High"), None), (EXAMPLE, 5)])
def test_causes_are_not_spoken_of_where_there_are_none(small, example, row):
    titles, figure = _drawn(small, example, [words_of(small.tokenizer, example).answer_row if row is None else row])
    assert titles == ["base", "adapter"]
    assert all(axis.get_legend() is None for axis in figure.axes)
    assert len({bar.get_facecolor() for axis in figure.axes for bar in axis.patches}) == 1
    assert {label.get_fontweight() for label in figure.axes[-1].get_xticklabels()} == {"normal"}


def test_every_row_has_a_panel_a_model(small):
    words = words_of(small.tokenizer, EXAMPLE)
    rows = [0, 5, words.answer_row]
    titles, figure = _drawn(small, EXAMPLE, rows)
    assert [title.partition(":")[0] for title in titles] == [
        f"{name}, at {row}" for row in rows for name in ("base", "adapter")
    ]
    assert ["causes" in title for title in titles] == [False, False, False, False, True, True]
    heads = look_at("base", small.model, words, rows)
    for line, axis in enumerate(figure.axes[::2]):
        assert [bar.get_height() for bar in axis.patches] == heads.panel(row=line).attention
        assert [label.get_text() for label in axis.get_xticklabels()] == words.labels


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        (["--target", "<b>High</b> {{data}}"], "when it answers “&lt;b&gt;High&lt;/b&gt; {{data}}”"),
        (["--target", "High", "--rows", "3"], "when it has read up to “Smoking:” (word 3)"),
        ([], "when it answers"),
        (["--rows", "0", "-1"], "in 2 rows"),
    ],
)
def test_the_title_names_the_row_that_is_drawn(adapters, tmp_path, asked, title):
    out = tmp_path / "a.html"
    assert main([str(adapters["first"]), "--text", INPUT, "--out", str(out), *asked]) == 0
    assert f"<h1>What the model looks at {title}</h1>" in out.read_text()


def test_the_page_begins_where_it_was_asked_to(page):
    data = _data(page)
    assert (data["layer"], data["head"]) == (1, 2)
    assert data["captions"] == ["when it has read up to “Smoking:” (word 0)", "when it answers “<b>High</b> {{data}}”"]
    assert "pick.layer.value = data.layer" in page
    assert "pick.head.value = data.head" in page


def test_the_page_knows_the_causes_of_the_answer_alone(small, tmp_path):
    words = words_of(small.tokenizer, EXAMPLE)
    rows = [(5, "five"), (words.answer_row, "answer")]
    heads = [look_at("base", small.model, words, [row for row, _ in rows])]
    write_page(words, heads, rows, title="t", out=tmp_path / "a.html")
    assert _data((tmp_path / "a.html").read_text())["causes"] == [[], [3, 4]]


def test_a_folder_that_is_no_adapter_is_named(tmp_path, capsys):
    assert main([str(tmp_path), "--text", INPUT, "--out", str(tmp_path / "a.html")]) == 1
    assert "adapter_damaged" in capsys.readouterr().err
