"""What a recipe asks for, and one line for each mistake in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from starcoder.errors import UserError
from starcoder.training.planner.job import read_job
from starcoder.training.planner.trace import Layout

RECIPE: dict[str, Any] = {
    "model": {"preset": "starcoderbase-1b"},
    "data": {"context_length": 4096, "batch_size": 2, "global_batch_size": 128},
    "trainer": {
        "max_steps": 1000,
        "num_nodes": 2,
        "devices": 8,
        "strategy": {
            "class_path": "S",
            "init_args": {
                "shard_size": 8,
                "param_dtype": "bfloat16",
                "checkpointing": "full",
                "compile_blocks": True,
            },
        },
    },
}


def write(folder: Path, **changes: dict[str, Any] | None) -> Path:
    recipe = {name: part | (changes.get(name) or {}) for name, part in RECIPE.items()}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_recipe_tells_everything(tmp_path: Path) -> None:
    job = read_job(write(tmp_path))
    assert (job.name, job.config.n_layer, job.length, job.global_batch, job.steps) == ("recipe", 24, 4096, 128, 1000)
    assert (job.nodes, job.per_node, job.ranks, job.tokens) == (2, 8, 16, 128 * 4096 * 1000)
    assert job.layout == Layout(16, 8, "full", micro_batch=2, accumulation=4, compile_blocks=True)


def test_the_command_line_has_the_last_word_on_gpus(tmp_path: Path) -> None:
    job = read_job(write(tmp_path), 4, 4)
    assert (job.nodes, job.per_node) == (4, 4)


def test_another_model_and_context_may_be_planned_with_the_same_recipe(tmp_path: Path) -> None:
    job = read_job(write(tmp_path), preset="starcoderbase-3b", context_length=2048)
    assert (job.config.n_embd, job.length, job.tokens) == (2816, 2048, 128 * 2048 * 1000)
    with pytest.raises(UserError, match="context_length is 0: give a number of 1 or more"):
        read_job(write(tmp_path), context_length=0)


def test_without_a_global_batch_it_follows_from_the_devices(tmp_path: Path) -> None:
    data, trainer = {"global_batch_size": None}, {"accumulate_grad_batches": 3}
    job = read_job(write(tmp_path, data=data, trainer=trainer))
    assert job.global_batch == 2 * 16 * 3


def test_a_layout_that_does_not_go_with_the_gpus_is_left_out(tmp_path: Path) -> None:
    assert read_job(write(tmp_path), 1, 4).layout is None  # a copy cannot be shared by 8 of 4
    assert read_job(write(tmp_path), 8, 16).layout is None  # 128 sequences in micro-batches of 2 on 128 GPUs


def test_a_layout_that_computes_in_fp32_is_left_out(tmp_path: Path) -> None:
    for dtype, planned in (("float32", False), ("bfloat16", True), ("auto", True)):
        strategy = {"init_args": {"shard_size": 8, "param_dtype": dtype}}
        assert (read_job(write(tmp_path, trainer={"strategy": strategy})).layout is not None) == planned
    assert read_job(write(tmp_path, trainer={"strategy": "auto"})).layout is None


def test_a_checkpoint_on_the_hub_is_known_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, model={"preset": None, "init_from": "bigcode/starcoderbase-3b"})
    assert read_job(path).config.n_embd == 2816


def test_a_recipe_may_change_another(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "longer.yaml").write_text("extends: recipe.yaml\ntrainer:\n  max_steps: 2000\n")
    job = read_job(tmp_path / "longer.yaml")
    assert (job.name, job.steps, job.nodes) == ("longer", 2000, 2)


def test_an_encoder_is_not_planned() -> None:
    recipe = Path(__file__).parents[3] / "recipes" / "starencoder-laptop.yaml"
    with pytest.raises(UserError, match=r"starencoder-laptop.yaml trains a starencoder, but only the language model"):
        read_job(recipe)


def test_a_recipe_may_be_given_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    write(tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    assert read_job(Path("recipe")).name == "recipe"
    with pytest.raises(UserError, match=r"no recipe recipes/other.yaml; recipes/ has recipe"):
        read_job(Path("other"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"preset": "gpt-5"}}, "no shape is known for 'gpt-5': set model.preset to one of starcoderbase"),
        ({"model": {"overrides": {"n_head": 7}}}, "n_embd 2048 is no multiple of n_head 7"),
        ({"data": {"context_length": None}}, "data.context_length is not given"),
        ({"data": {"context_length": 16384}}, "data.context_length 16384 is beyond the model's 8192"),
        ({"data": {"global_batch_size": -1}}, "data.global_batch_size is -1"),
        ({"trainer": {"max_steps": -1}}, "trainer.max_steps is -1"),
        ({"trainer": {"devices": "auto"}}, "--gpus is 'auto': give a number"),
        (
            {"trainer": {"strategy": {"init_args": {"checkpointing": "some"}}}},
            "strategy: checkpointing is 'some', none of none, selective, full",
        ),
        ({"trainer": {"strategy": {"init_args": {"shard_size": -8}}}}, "shard_size is -8"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        read_job(write(tmp_path, **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["- a list", "key: [", "", "trainer: 3\ndata: x"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"bad.yaml"):
        read_job(tmp_path / "bad.yaml")
