import subprocess
import sys

import pytest

from torchclas import catalog, cli, recipes
from torchclas.errors import UnknownNameError
from torchclas.recipes import Distill, Recipe, RecipeError, override, recipe
from torchclas.tasks.recipe import recipe_file

EVERY_RECIPE = pytest.mark.parametrize("found", recipes.recipes().values(), ids=lambda found: found.name)

MINIMAL = """
[base.plain]
source = "a paper"
epochs = 90
batch_size = 32
optimizer = { lr = 0.2, weight_decay = 1e-5 }
recipes = [
  { names = ["Net50", "Net101"] },
"""


def parse_row(row: str) -> dict[str, Recipe]:
    return recipes.parse(f"{MINIMAL}  {row},\n]\n")


def test_counts() -> None:
    everything = recipes.recipes()
    ours = [name for name, found in everything.items() if not found.published]
    assert ours == [
        *("SE_HRNet_W64_C", "EfficientNetB0_small", "EfficientNet_lite0"),
        *("ssld", "ssld_finetune", "finetune", "finetune_transformer", "fixres"),
    ]
    distilling = [name for name, found in everything.items() if found.distill]
    assert len(distilling) == 18
    assert len(everything) - len(distilling) - len(ours) == 191 - 2  # two of ours distil


@pytest.mark.parametrize("name", sorted({*catalog.names(), *(entry.arch for entry in catalog.entries())}))
def test_every_published_name_and_architecture_has_a_recipe(name: str) -> None:
    entry = catalog.find(name)
    if entry.recipe is not None and name not in recipes.recipes():
        assert recipe(name).name == entry.recipe
    assert recipe(name.upper()) == recipe(name)


@pytest.mark.parametrize("entry", catalog.entries(), ids=lambda entry: entry.name)
def test_a_recipe_trains_at_the_size_its_model_is_evaluated_at(entry: catalog.Entry) -> None:
    found = recipes.recipes()[entry.recipe or entry.arch]
    size = (224, 224) if entry.name.startswith("Fix_") else entry.preset.size
    assert found.size == size


@EVERY_RECIPE
def test_students_and_teachers_exist(found: Recipe) -> None:
    if found.distill and found.name not in ("ssld", "ssld_finetune"):
        assert catalog.find(found.distill.student).arch == found.distill.student
        assert catalog.find(found.distill.teacher).name == found.distill.teacher


@EVERY_RECIPE
def test_toml_holds_all_of_it(found: Recipe) -> None:
    assert Recipe.from_toml(found.to_toml()) == found


def test_published_facts() -> None:
    found = recipe("ResNet50")
    assert (found.source, found.epochs, found.batch_size, found.total_batch) == ("PaddleClas 2.3", 120, 64, 256)
    assert (found.optimizer.name, found.optimizer.lr, found.optimizer.weight_decay) == ("sgd", 0.1, 1e-4)
    assert (found.schedule.milestones, found.schedule.values) == ((30, 60, 90), (0.1, 0.01, 0.001, 0.0001))
    assert (found.loss.label_smoothing, found.augment.mixup_prob) == (0, 0)

    found = recipe("ResNet50_vd")
    assert (found.epochs, found.optimizer.weight_decay) == (200, 7e-5)
    assert (found.augment.mixup, found.augment.mixup_prob, found.loss.label_smoothing) == (0.2, 1, 0.1)

    found = recipe("EfficientNetB7")
    assert (found.optimizer.name, found.optimizer.lr, found.optimizer.eps) == ("rmsprop", 0.032, 1e-3)
    assert (found.input_size, found.augment.policy, found.schedule.warmup_epochs) == (600, "autoaugment", 5)

    found = recipe("DeiT_base_distilled_patch16_384")
    assert (found.total_batch, found.input_size, found.drop_path, found.dropout) == (1024, 384, 0.1, 0.0)
    assert (found.optimizer.lr, found.schedule.warmup_lr, found.schedule.min_lr) == (1e-3, 1e-6, 1e-5)
    assert (found.augment.mixup, found.augment.cutmix, found.augment.erasing) == (0.8, 1.0, 0.25)

    assert recipe("GoogLeNet").loss.head_weights == (1.0, 0.3, 0.3)
    assert recipe("PPLCNet_x0_25").optimizer.no_decay == ("norm",)
    assert recipe("resnet34_distill_resnet18_dkd").distill == Distill("ResNet34", "ResNet18", "dkd", label_weight=1.0)
    assert recipe("MobileNetV3_small_x1_0_ssld_finetune").total_batch == 6400


def test_names_of_a_row_share_its_differences() -> None:
    found = parse_row('{ names = ["Net152", "Net200"], epochs = 120, optimizer.lr = 0.4 }')
    assert list(found) == ["Net50", "Net101", "Net152", "Net200"]
    assert [row.epochs for row in found.values()] == [90, 90, 120, 120]
    assert [row.optimizer.lr for row in found.values()] == [0.2, 0.2, 0.4, 0.4]
    assert {row.optimizer.weight_decay for row in found.values()} == {1e-5}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{ names = ["Net50"] }', "Net50: the name is used twice"),
        ("{ epochs = 100 }", "plain.recipes: names: is missing"),
        ('{ names = ["A"], epoch = 100 }', "A: epoch: unknown key, did you mean epochs"),
        ('{ names = ["A"], optimizer.learning = 1 }', "A: optimizer: learning: unknown key"),
        ('{ names = ["A"], optimizer = 0.1 }', "A: optimizer: must be a table, not 0.1"),
        ('{ names = ["A"], epochs = 1.5 }', "A: epochs: must be a positive integer, not 1.5"),
        ('{ names = ["A"], optimizer.lr = "1e-3" }', "A: optimizer: lr: must be a number, not '1e-3'"),
        ('{ names = ["A"], optimizer.lr = 0 }', "A: optimizer: lr: must be a positive number, not 0.0"),
        ('{ names = ["A"], optimizer.name = "lamb" }', "A: optimizer: name: must be one of sgd, rmsprop, adamw"),
        ('{ names = ["A"], optimizer.betas = [0.9] }', "A: optimizer: betas: must be 2 values"),
        ('{ names = ["A"], optimizer.decay_one_dim = 1 }', "must be true or false"),
        (
            '{ names = ["A"], schedule = { name = "piecewise", milestones = [30] } }',
            "values: must be 2 positive numbers",
        ),
        (
            '{ names = ["A"], schedule = { name = "piecewise", milestones = [60, 30], values = [1, 1, 1] } }',
            "milestones: must be epochs in rising order",
        ),
        ('{ names = ["A"], schedule.warmup_epochs = 90 }', "A: schedule.warmup_epochs: must be less than epochs = 90"),
        ('{ names = ["A"], augment.mixup = 0.2 }', "A: augment: mixup_prob: must be above 0 exactly where mixup is"),
        ('{ names = ["A"], augment.scale = [0.5, 0.1] }', "A: augment: scale: must be two rising numbers"),
        (
            '{ names = ["A"], augment = { mixup = 1, mixup_prob = 0.6, cutmix = 1, cutmix_prob = 0.6 } }',
            "cutmix_prob: must be at most 1 together with mixup_prob",
        ),
        ('{ names = ["A"], loss.label_smoothing = 1 }', "A: loss: label_smoothing: must be in 0..1"),
        ('{ names = ["A"], drop_path = 1.0 }', "A: drop_path: must be a probability"),
        ('{ names = ["A"], distill.method = "kd" }', "A: distill: method: must be one of ssld, ce, dkd"),
        ("{ names = ", "not valid TOML"),
    ],
)
def test_a_broken_recipe_names_itself_and_the_key(row: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_row(row)


def test_override() -> None:
    base = recipe("ResNet50")
    changed = override(base, ["optimizer.lr=0.05", "epochs = 20", "drop_path=0.1", "augment.policy=autoaugment"])
    assert (changed.optimizer.lr, changed.epochs, changed.drop_path) == (0.05, 20, 0.1)
    assert changed.augment.policy == "autoaugment"
    assert changed.optimizer.weight_decay == base.optimizer.weight_decay
    assert not changed.published
    assert changed.source.startswith("PaddleClas 2.3, with optimizer.lr = 0.05, epochs = 20")
    assert override(base, []) == base
    assert override(changed, ["drop_path=none"]).drop_path is None


def test_settings_that_need_each_other_change_together() -> None:
    changed = override(recipe("ResNet50"), ["schedule.milestones=[5]", "schedule.values=[0.1, 0.01]"])
    assert (changed.schedule.milestones, changed.schedule.values) == ((5.0,), (0.1, 0.01))
    changed = override(recipe("ResNet50"), ["distill.teacher=ResNet101", "distill.student=ResNet50"])
    assert changed.distill == Distill("ResNet101", "ResNet50")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "'epochs' is not a setting: write key=value"),
        ("lr=0.1", "unknown setting 'lr', did you mean optimizer.lr?"),
        ("optimizer.epochs=3", "unknown setting 'optimizer.epochs', did you mean epochs?"),
        ("optimiser.lr=1", "did you mean optimizer.lr?"),
        ("optimizer.rate=1", "unknown setting 'optimizer.rate': optimizer has name, lr, weight_decay"),
        ("epoch=1", "did you mean epochs?"),
        ("epochs=ten", "ResNet50: epochs: must be a positive integer, not 'ten'"),
        ("optimizer.lr=-1", "ResNet50: optimizer: lr: must be a positive number"),
        ("epochs=none", "ResNet50: epochs: is missing"),
    ],
)
def test_override_rejects(setting: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        override(recipe("ResNet50"), [setting])
    assert message in str(caught.value)


def test_another_batch_scales_all_learning_rates() -> None:
    base = recipe("DeiT_tiny_patch16_224")
    small = base.with_batch(32, 2)
    assert (small.total_batch, base.total_batch) == (64, 1024)
    assert small.optimizer.lr == pytest.approx(1e-3 / 16)
    assert (small.schedule.warmup_lr, small.schedule.min_lr) == pytest.approx((1e-6 / 16, 1e-5 / 16))
    steps = recipe("ResNet50").with_batch(64, 8)
    assert steps.schedule.values == pytest.approx((0.2, 0.02, 0.002, 0.0002))
    assert steps.with_batch(64, 4) == recipe("ResNet50")


def test_a_recipe_fits_a_model() -> None:
    preset = catalog.find("SwinTransformer_base_patch4_window12_384").preset
    fitted = recipe("finetune").for_preset(preset)
    assert (fitted.input_size, fitted.augment.interpolation, fitted.augment.backend) == (384, "bicubic", "pillow")
    assert fitted.augment.scale == recipe("finetune").augment.scale


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"each model's name is one .*and so are .*ssld, .*finetune, .*fixres"):
        recipe("#")
    with pytest.raises(UnknownNameError, match="unknown recipe 'ResNet5O': did you mean ResNet50"):
        recipe("ResNet5O")


def test_the_file_a_user_sees() -> None:
    content = recipe_file("resnet50_vd_v2", ["batch_size=32"])
    assert content.startswith(
        "# ResNet50_vd, for resnet50_vd_v2. Not published: PaddleClas 2.3, with batch_size = 32.\n"
    )
    assert "32 on each of 4 devices, 128 in total" in content
    assert Recipe.from_toml(content) == override(recipe("ResNet50_vd"), ["batch_size=32"])


def test_reading_recipes_needs_no_torch() -> None:
    code = (
        "import sys; from torchclas import recipes; recipes.recipes();"
        "print(sorted({'torch', 'numpy', 'cv2', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["recipe", "finetune", "--set", "epochs=3", "--set", "optimizer.lr=1e-4"]) == 0
    printed = Recipe.from_toml(capsys.readouterr().out)
    assert (printed.name, printed.epochs, printed.optimizer.lr) == ("finetune", 3, 1e-4)
    assert cli.run(["recipe", "finetune", "--set", "lr=1"]) == 2
    assert capsys.readouterr().err == "torchclas: unknown setting 'lr', did you mean optimizer.lr?\n"


@pytest.mark.parametrize(
    "setting",
    [
        f"optimizer.lr={'9' * 400}",
        f"optimizer.lr={'9' * 5000}",
        "optimizer.lr=1e300",
        "optimizer.weight_decay=-inf",
        "input_size=1000000000",
        f"epochs={10**30}",
        f"augment.scale={'[' * 200}{']' * 200}",
        f"augment.scale={'[' * 20000}{']' * 20000}",
        "optimizer.betas=[1e999, 0]",
        "loss.class_weights=[]",
        "loss.class_weights=[0, 0]",
        "loss.class_weights=[1, -1]",
        "loss.class_weights=[1, 1e300]",
        "loss.class_weights=[[1]]",
        "sampling=even",
    ],
)
def test_absurd_settings_are_one_short_line(setting: str) -> None:
    with pytest.raises(RecipeError) as refused:
        override(recipe("finetune"), [setting])
    assert setting.partition("=")[0].rpartition(".")[2] in str(refused.value)
    assert len(str(refused.value)) < 250
    assert "\n" not in str(refused.value)


def test_recipes_from_anywhere_are_read_as_strictly() -> None:
    for content in (f"epochs = {'9' * 5000}", f"epochs = {'[' * 20000}"):
        with pytest.raises(RecipeError, match="not valid TOML"):
            Recipe.from_toml(content)


def test_classes_are_balanced_by_settings() -> None:
    base = recipe("finetune")
    assert (base.sampling, base.loss.class_weights) == ("", "")
    changed = override(base, ["sampling=sqrt", "loss.class_weights=balanced"])
    assert (changed.sampling, changed.loss.class_weights) == ("sqrt", "balanced")
    numbers = override(base, ["loss.class_weights=[1, 2.5]"])
    assert numbers.loss.class_weights == (1.0, 2.5)
    for found in (changed, numbers):
        assert Recipe.from_toml(found.to_toml()) == found


def test_published_recipes_keep_the_last_batch() -> None:
    assert not any(found.drop_last for found in recipes.recipes().values() if found.published)
    assert all(recipe(name).drop_last for name in ("finetune", "finetune_transformer", "fixres"))
