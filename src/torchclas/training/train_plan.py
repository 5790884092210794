"""What `train` will do: every choice that its options leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torchclas import catalog
from torchclas.data.datasets import LabelledImages
from torchclas.data.multi_label import is_multi_label
from torchclas.data.opening import open_training
from torchclas.data.stores import absolute
from torchclas.data.training import split_by_hash
from torchclas.errors import DataError, Error
from torchclas.labels import LabelSet, label_set, read_names
from torchclas.recipes import Recipe, recipes
from torchclas.recipes import recipe as find_recipe
from torchclas.spec import ModelSpec, find_model
from torchclas.training.machine import check_machine
from torchclas.training.options import Start, TrainOptions
from torchclas.training.plan import (
    VALIDATION_SHARE,
    Choices,
    Given,
    Plan,
    adjust,
    base_plan,
    batch_for,
    check_balance,
    preset_at,
    source_of,
    total_batch,
    with_loss,
)
from torchclas.training.run import stored
from torchclas.vocabulary import LANGUAGES

TUNING = ("finetune", "finetune_transformer")  # recipes that go on from weights


def make_plan(options: TrainOptions, given: Given | None = None) -> Plan:
    """Make every choice that the options leave open; nothing is written."""
    check_machine(options)
    asked = None if options.start is None else Start.of(options.start)
    spec = find_model(options.model, weights=asked and asked.path, headless=True)
    if options.in_channels is not None:
        spec = replace(spec, in_channels=options.in_channels)
    if given is not None and given.preset is not None:
        spec = replace(spec, preset=given.preset)
    start, notes = _start(options, asked, spec)
    labels = options.labels
    if given is not None:
        notes += given.notes
        labels = labels or given.names(spec.classes)
    if labels is not None and spec.path is not None and spec.numbered:
        named = isinstance(labels, Path)
        names = read_names(labels) if named else labels
        if len(names) == spec.num_classes and tuple(names) != spec.classes.ids:
            spec = spec.with_names(names)
            whose = labels if named else f"those of {options.config}"
            notes.append(f"{spec.path} does not name its {len(names)} classes: they are taken to be {whose}")
    recipe_given = None if given is None else given.recipe
    tunes = start.kind != "scratch" and options.recipe in (None, *TUNING) and recipe_given is None
    images, held_out, classes, taken = read_data(options, spec, labels, None if given is None else given.val_root)
    same_classes = classes == spec.classes.ids
    if start.kind != "scratch" and spec.path is not None and not same_classes:
        notes.append(_new_head(spec, classes))
    if options.fixres is not None and not same_classes:
        raise DataError(
            f"{source_of(options)}: FixRes keeps the classifier, so the data must have {spec.name}'s classes"
        )

    output = Path("runs", f"{Path(spec.name).stem}-{Path(absolute(source_of(options))).name}")
    output = output if options.output is None else options.output
    # A run goes on with its batches, however many devices there are now.
    batch_size = options.batch_size or stored(output).get("total_batch")
    recipe = with_loss(_recipe(options, spec, tunes, batch_size, len(images), recipe_given), images)
    check_balance(recipe, images, classes)
    if tunes:
        total, few = min(batch_size or recipe.total_batch, len(images)), ()
    else:
        total, few = total_batch(options, recipe, batch_size, len(images))
    head_epochs = options.head_epochs
    if head_epochs is None:
        head_epochs = int(tunes and not options.fixres and not same_classes and recipe.epochs > 1)
    preset = preset_at(spec.preset, recipe, whole=options.fixres is not None)
    if given is not None and given.preset is not None and given.size == recipe.size:
        preset = given.preset  # at the size that it has, which need not be that of training
    return base_plan(
        options,
        Choices(
            model=spec,
            start=start,
            keep_head=same_classes,
            recipe=recipe,
            preset=preset,
            train=images,
            validation=held_out,
            result=replace(
                spec,
                name=spec.arch if spec.path is not None else spec.name,
                num_classes=len(classes),
                preset=preset,
                classes=spec.classes if same_classes and spec.path is None else _label_set(spec, classes),
                activation="sigmoid" if is_multi_label(images) else "softmax",
                thresholds=(),
                address=None,
            ),
            output=output,
            total_batch=total,
            head_epochs=head_epochs,
            notes=(*taken, *notes, *few),
        ),
        command="train",
        identity={
            "model": spec.name if spec.path is None else str(spec.address or spec.path),
            "classes": len(classes),
            "head_epochs": head_epochs,
            **({} if spec.in_channels == 3 else {"in_channels": spec.in_channels}),
        },
    )


def _start(options: TrainOptions, asked: Start | None, spec: ModelSpec) -> tuple[Start, list[str]]:
    """Where the weights come from, and what to say about it."""
    if options.fixres is not None and (options.recipe is not None or asked == Start("scratch")):
        raise Error("--fixres adapts a trained model to larger images, by a recipe of its own: leave that option out")
    if asked is not None:
        return asked, []
    if spec.path is not None:
        return Start("published"), []  # of `-m FILE`
    if options.recipe not in (None, *TUNING):
        return Start("scratch"), []
    if catalog.find(spec.name).weights is None:
        if options.fixres is not None:
            raise Error(f"no weights of {spec.name} were published that --fixres could adapt: name yours (--from FILE)")
        return Start("scratch"), [f"no weights of {spec.name} were published, so it is trained from scratch"]
    return Start("published"), []


def _new_head(spec: ModelSpec, classes: tuple[str, ...]) -> str:
    """Why the last layer of a file's weights is not kept."""
    if not spec.num_classes:
        return f"{spec.path} has no classifier: the last layer starts anew"
    if spec.num_classes != len(classes):
        return f"{spec.path} has {spec.num_classes} classes, the data {len(classes)}: the last layer starts anew"
    theirs, ours = next(pair for pair in zip(spec.classes.ids, classes, strict=True) if pair[0] != pair[1])
    return (
        f"the data's classes are not those of {spec.path} ({ours!r} stands for {theirs!r}): the last layer starts anew"
    )


def _recipe(
    options: TrainOptions, spec: ModelSpec, tunes: bool, batch_size: int | None, images: int, given: Recipe | None
) -> Recipe:
    """The recipe with all that the options change; `given` is a configuration's, whose rates are for its own batch."""
    if given is not None:
        return adjust(given, options, spec.arch)
    if tunes:
        transformer = catalog.find(spec.arch).series.group.kind == "transformer"
        usual = "fixres" if options.fixres else "finetune_transformer" if transformer else "finetune"
        chosen = find_recipe(options.recipe or usual).for_preset(spec.preset)
        if batch_size is None:
            batch_size = min(chosen.batch_size, batch_for(images))
    else:
        chosen = find_recipe(options.recipe or spec.arch)
    if options.fixres is not None:
        chosen = replace(chosen, input_size=options.fixres)
    if chosen.distill is not None:
        raise Error(f"{chosen.name} is a recipe for distillation: `torchclas distill` follows it")
    ours = not chosen.published and chosen.name in recipes()
    if batch_size is not None and ours:  # AdamW at our rates does not mind the size of the batch
        chosen = replace(chosen, batch_size=batch_size, devices=1)
    return adjust(chosen, options, spec.arch)


def read_data(
    options: TrainOptions,
    spec: ModelSpec,
    labels: Path | Sequence[str] | None = None,
    val_root: str | Path | None = None,
) -> tuple[LabelledImages, LabelledImages, tuple[str, ...], tuple[str, ...]]:
    """Images to train on, images to validate on, the ids of the classes, and what was taken for what."""
    data = open_training(
        source_of(options),
        options.val,
        model=spec.classes,
        labels=options.labels if labels is None else labels,
        root=options.root,
        val_root=val_root,
        delimiter=options.delimiter,
        relabel=options.relabel,
    )
    if data.validation is not None:
        return data.train, data.validation, data.classes, data.notes
    return *split_by_hash(data.train, VALIDATION_SHARE), data.classes, data.notes


def _label_set(spec: ModelSpec, classes: tuple[str, ...]) -> LabelSet:
    """The data's classes, with English names for those that the model, or ImageNet, knows by their ids."""
    known: dict[str, str] = {}
    for labels in (label_set("imagenet1k"), spec.classes):
        known |= zip(labels.ids, labels.names("en"), strict=True)
    return LabelSet("", classes, dict.fromkeys(LANGUAGES, tuple(known.get(name, name) for name in classes)))
