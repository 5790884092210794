"""What `distill` will do: every choice that its options leave open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torchclas import catalog
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import LabelledImages
from torchclas.data.opening import Opened, Split, open_for_model, open_pictures
from torchclas.data.training import TrainingBatches, sampling_weights, split_by_hash
from torchclas.digest import sha256_of
from torchclas.errors import DataError, Error
from torchclas.recipes import Distill, Recipe, override, recipes
from torchclas.recipes import recipe as find_recipe
from torchclas.spec import ModelSpec, find_model
from torchclas.training.distillation import (
    BatchNormMode,
    DistillationBatches,
    DistillationLoss,
    LogitCache,
    Teacher,
    describe,
)
from torchclas.training.options import DistillOptions, Start
from torchclas.training.run import stored
from torchclas.zoo import load_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric

from torchclas.training.machine import check_machine
from torchclas.training.plan import (
    VALIDATION_SHARE,
    Choices,
    Given,
    Plan,
    adjust,
    base_plan,
    check_balance,
    preset_at,
    source_of,
    total_batch,
)

AGREEMENT_IMAGES = 5000  # at most, held out to see how often the student agrees with the teacher
AGREEMENT_SHARE = 0.1

# What to do where the teacher gives an image several classes.
_ONE_CLASS = "a student learns from the softmax of one: train it on the labels (torchclas train)"


@dataclass(frozen=True, kw_only=True)
class DistillPlan(Plan):
    """A plan with a teacher, and with a cache where one was asked for."""

    teacher: ModelSpec
    teacher_bn: BatchNormMode
    distill: Distill
    validates_agreement: bool
    cache: LogitCache | None

    @property
    def transform(self) -> TrainTransform:
        """What makes the views."""
        return TrainTransform(self.settings.recipe.augment, self.preset, self.preset.size)

    def batches(self, fabric: Fabric) -> TrainingBatches:
        """What this process trains on."""
        return DistillationBatches(
            self.train,
            self.transform,
            self.total_batch,
            views=self.cache.views if self.cache else 0,
            seed=self.settings.seed,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            workers=self.workers,
            pin_memory=fabric.device.type == "cuda",
            drop_last=self.settings.recipe.drop_last,
            weights=sampling_weights(self.train.labels, self.settings.recipe.sampling),
        )

    def criterion(self, fabric: Fabric) -> DistillationLoss:
        """What is minimised."""
        source = self.cache.source() if self.cache else self.load_teacher(fabric, self.teacher_bn)
        return DistillationLoss(source, self.distill, self.settings.recipe.loss, self.class_weights)

    def load_teacher(self, fabric: Fabric, batch_norm: BatchNormMode = "eval") -> Teacher:
        """The teacher, for images as the student sees them."""
        return Teacher(fabric, load_model(self.teacher), self.teacher.preset, self.preset, batch_norm)


def make_plan(options: DistillOptions, given: Given | None = None) -> DistillPlan:
    """Make every choice that the options leave open; nothing is written."""
    check_machine(options)
    start = Start.of(options.start or "scratch")
    chosen = find_recipe(options.recipe) if options.recipe else None if given is None else given.recipe
    model = options.model or (chosen.distill.student if chosen and chosen.distill else None) or None
    if model is None and start.path is None:
        raise Error("which model is the student? Name it (-m), or choose a recipe that does, such as MobileNetV1_ssld")
    student = find_model(model, weights=start.path)
    if given is not None and given.preset is not None:
        student = replace(student, preset=given.preset)
    recipe = _recipe(options, chosen or _default_recipe(student.arch), student.arch)
    settings = recipe.distill
    assert settings is not None
    teacher = find_model(settings.teacher).needs_one_class(_ONE_CLASS)
    if student.in_channels != 3 or teacher.in_channels != 3:
        raise Error("a student learns from a teacher of RGB images, and sees them as well: both need 3 input channels")
    labelled = settings.method == "dkd" or settings.label_weight > 0
    if not labelled and (recipe.sampling or recipe.loss.class_weights):
        raise Error(
            f"{recipe.name} learns without labels, so it has no classes to balance: leave out sampling and "
            "loss.class_weights, or let labels count (--set distill.label_weight=1)"
        )
    if student.num_classes != teacher.num_classes and start.kind != "scratch":
        raise Error(
            f"{student.name} has {student.num_classes} classes, its teacher {teacher.name} {teacher.num_classes}: a "
            "student that starts from weights needs the teacher's classes (or begin --from scratch)"
        )
    images, held_out, notes = _read(options, teacher, given, labelled=labelled)
    if given is not None:
        notes = (*given.notes, *notes)
    output = options.output or Path("runs", f"{Path(student.name).stem}-by-{Path(teacher.name).stem}")
    batch_size = options.batch_size or stored(output).get("total_batch")
    check_balance(recipe, images, teacher.classes.ids)
    total, few = total_batch(options, recipe, batch_size, len(images))
    preset = preset_at(student.preset, recipe)
    identity = teacher.name if teacher.path is None else f"{teacher.name} ({sha256_of(teacher.path)[:16]})"
    result = replace(
        student,
        name=student.arch,
        num_classes=teacher.num_classes,
        preset=preset,
        classes=teacher.classes,
        activation="softmax",
        thresholds=(),
        address=None,
    )
    choices = Choices(
        model=student,
        start=start,
        keep_head=True,
        recipe=recipe,
        preset=preset,
        train=images,
        validation=held_out,
        result=result,
        output=output,
        total_batch=total,
        notes=(*notes, *few),
    )
    base = base_plan(
        options,
        choices,
        command="distill",
        identity={
            "model": student.arch,
            "teacher": identity,
            "teacher_bn": options.teacher_bn,
            "cache_logits": options.cache_logits,
            "cache_views": options.cache_views if options.cache_logits else 0,
        },
        teacher=teacher.name,
    )
    return DistillPlan(
        **vars(base),
        teacher=teacher,
        teacher_bn=options.teacher_bn,
        distill=settings,
        validates_agreement=options.val is None and not labelled,
        cache=_cache(options, recipe, images, teacher, identity, preset, output),
    )


def second_phase(options: DistillOptions, first: DistillPlan) -> DistillOptions:
    """The same with the second phase's recipe and data, from the first one's best weights.

    Where the first phase was cut short, so is the second, in proportion. The optimizer and its schedule are the
    recipe's, whatever the first phase's were changed to.
    """
    assert options.finetune is not None
    recipe = first.settings.recipe
    name = f"{recipe.name}_finetune" if f"{recipe.name}_finetune" in recipes() else "ssld_finetune"
    published = find_recipe(recipe.name).epochs
    kept = [change for change in options.overrides if not change.startswith(("optimizer.", "schedule.", "epochs"))]
    return replace(
        options,
        data=options.finetune,
        finetune=None,
        config=None,
        model=first.model.arch,
        start=str(first.folder.best),
        recipe=name,
        teacher=str(first.teacher.path or first.teacher.name),
        epochs=max(1, round(find_recipe(name).epochs * recipe.epochs / published)),
        overrides=kept,
        cache_folder=options.cache_folder / "finetune" if options.cache_folder else None,
        output=first.output / "finetune",
    )


def _default_recipe(arch: str) -> Recipe:
    """The one that was published for the student, or SSLD's for any."""
    own = recipes().get(f"{arch}_ssld")
    return own if own is not None and own.distill is not None and own.distill.student == arch else recipes()["ssld"]


def _recipe(options: DistillOptions, chosen: Recipe, arch: str) -> Recipe:
    """The recipe with all that the options change."""
    settings = chosen.distill or Distill()
    changes: list[str] = []
    if options.teacher is not None and options.teacher != settings.teacher:
        changes.append(f"distill.teacher={options.teacher}")
    if arch != settings.student:
        changes.append(f"distill.student={arch}")
    method = options.method or settings.method
    if method != settings.method or chosen.distill is None:
        changes.append(f"distill.method={method}")
        if method == "dkd" and not settings.label_weight:  # as published: the labels teach as well
            changes.append("distill.label_weight=1")
    recipe = adjust(override(chosen, changes), options, arch)
    assert recipe.distill is not None
    if not recipe.distill.teacher:
        raise Error(f"recipe {recipe.name} names no teacher: give one (--teacher NAME or FILE)")
    if recipe.augment.mixup or recipe.augment.cutmix:
        raise Error(
            f"recipe {recipe.name} mixes images, and no one asks the teacher about mixtures: turn that off "
            "(--set augment.mixup=0 --set augment.mixup_prob=0, and the same for cutmix)"
        )
    return recipe


def _cache(
    options: DistillOptions,
    recipe: Recipe,
    images: LabelledImages,
    teacher: ModelSpec,
    identity: str,
    preset: catalog.Preset,
    output: Path,
) -> LogitCache | None:
    if not options.cache_logits:
        return None
    if options.teacher_bn == "train":
        raise Error(
            "--teacher-bn train makes the teacher's answer depend on the other images of a batch, and those change "
            "from epoch to epoch: use it without --cache-logits"
        )
    return LogitCache(
        options.cache_folder or output.with_name(f"{output.name}-logits"),
        describe(images, recipe.augment, preset, identity),
        images=len(images),
        views=options.cache_views,
        classes=teacher.num_classes,
        k=options.cache_logits,
    )


def _read(
    options: DistillOptions, teacher: ModelSpec, given: Given | None, *, labelled: bool
) -> tuple[LabelledImages, LabelledImages, tuple[str, ...]]:
    """Images to train on, images to validate on, and what was taken for what."""
    if labelled:
        opened = _labelled(options, source_of(options), teacher, "train")
    else:
        root = (
            None if Path(source_of(options)).is_dir() else options.root
        )  # the second phase may have folders for a list
        opened = open_pictures(source_of(options), root=root, delimiter=options.delimiter)
        if len(opened.images) < 2:
            raise DataError(f"{source_of(options)}: {len(opened.images)} images are too few to learn from")
    images, notes = opened.images, opened.notes
    if options.val is not None:
        root = options.root if given is None or given.val_root is None else given.val_root
        held_out = _labelled(replace(options, root=root), options.val, teacher, "val")
        return images, held_out.images, (*notes, *held_out.notes)
    share = VALIDATION_SHARE if labelled else min(AGREEMENT_SHARE, AGREEMENT_IMAGES / len(images))
    return *split_by_hash(images, share), notes


def _labelled(options: DistillOptions, data: str | Path, teacher: ModelSpec, split: Split) -> Opened:
    return open_for_model(
        data,
        teacher.classes,
        teacher.name,
        split=split,
        labels=options.labels,
        root=None if Path(data).is_dir() else options.root,
        delimiter=options.delimiter,
        relabel=options.relabel,
    )
