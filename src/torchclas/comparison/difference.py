"""Where two deployments of what should be one model part, and which single change of one makes it the other.

Deployments of ours say how they prepare images, and their networks can be compared layer by layer. Of another program
there are only numbers: for these, likely changes of A are tried until A computes B's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchclas.comparison.foreign_numbers import ForeignNumbers
from torchclas.comparison.networks import first_parting, network_changes, overflowing_layer
from torchclas.comparison.preparations import (
    Change,
    Preparation,
    Stage,
    changed,
    declared,
    hypotheses,
    pixels_of,
    prepare,
)
from torchclas.data.decode import Pixels
from torchclas.errors import DataError, ImageError
from torchclas.inference.classifier import Classifier
from torchclas.metrics.scores import probabilities
from torchclas.vocabulary import Activation

SAME = 1e-4  # of the largest value: what engines promise one another
REPRODUCED = 1e-3  # of the spread of a row: what files of other programs are rounded to
BETTER = 10.0  # times nearer than before, that a cause counts as found
SEARCHED = 8  # images that changes are tried on
FOLLOWED = 3  # changes that bring A nearer, with each of which a second one is tried
UNEXPLAINED = "B's network gives other logits for A's input, and nothing that was tried explains it"
AT_ONCE = 64  # images that batch norms in training mode are given together


@dataclass(frozen=True)
class Step:
    """One station on the way from a file to a class. `difference` is None where nothing could be compared."""

    stage: str
    difference: float | None
    same: bool
    note: str = ""


@dataclass(frozen=True)
class Cause:
    """What makes B differ: with this change A is `left` away from B's numbers, in parts of their spread."""

    stage: Stage
    text: str
    left: float


@dataclass(frozen=True)
class ChangedClass:
    """An image to which A and B give different classes."""

    source: str
    a: str
    b: str


@dataclass(frozen=True)
class Difference:
    """What `compare` found. `largest` is the largest difference of an output, in parts of the spread of A's.

    `causes` are empty where the two are the same, and where none was found; the first is the one of the verdict.
    `images` could be read, `unreadable` not.
    """

    a: str
    b: str
    images: int
    unreadable: int
    same: bool
    largest: float | None
    changed: tuple[ChangedClass, ...]
    steps: tuple[Step, ...]
    causes: tuple[Cause, ...]
    verdict: str

    def to_dict(self) -> dict[str, object]:
        """Plain values that JSON can hold; what is infinite is None."""
        return _plain(asdict(self))  # pyright: ignore[reportReturnType]


def compare(a: Classifier, b: Classifier | ForeignNumbers, sources: Sequence[str]) -> Difference:
    """Compare two deployments on images: paths or URLs, for each of which B's numbers have a row.

    Raises:
        DataError: no image can be read; B's numbers are not as many as the images, or do not fit A's model.
    """
    images = _Images.read(a, sources)
    if isinstance(b, ForeignNumbers):
        return _with_numbers(a, b, images)
    return _with_model(a, b, images)


@dataclass(frozen=True, eq=False)
class _Images:
    """The images that can be read. `rows` are their places among all that were named.

    The first of them, on which changes are tried, are kept decoded; of all there may be more than memory holds.
    """

    sources: list[str]
    pixels: list[Pixels]
    rows: list[int]
    named: int

    @classmethod
    def read(cls, a: Classifier, sources: Sequence[str]) -> _Images:
        images = cls([], [], [], len(sources))
        for row, source in enumerate(sources):
            try:
                pixels = pixels_of(source, a.preprocess.max_pixels)
            except ImageError:
                continue
            images.sources.append(source)
            if len(images.pixels) < SEARCHED:
                images.pixels.append(pixels)
            images.rows.append(row)
        if not images.rows:
            raise DataError(f"none of the {len(sources)} images can be read: `torchclas predict` says why")
        return images

    def head(self, count: int) -> _Images:
        return _Images(self.sources[:count], self.pixels[:count], self.rows[:count], self.named)

    def prepared(self, made: Preparation) -> NDArray[np.float32]:
        """float32 [N, channels, height, width]."""
        later = (pixels_of(source, made.max_pixels) for source in self.sources[len(self.pixels) :])
        return prepare(made, self.sources, chain(self.pixels, later))


def _base(model: Classifier) -> Preparation:
    if model.spec.pixels:
        raise DataError(f"{model.spec.name} prepares images inside its graph: compare the file it was exported from")
    return Preparation(model.spec.preset, model.preprocess.max_pixels, model.spec.in_channels)


def _logits(model: Classifier, tensors: NDArray[np.float32]) -> NDArray[np.float32]:
    engine, size = model.engine_for("logits"), model.batch_size
    return np.concatenate([engine(tensors[start : start + size]) for start in range(0, len(tensors), size)])


class _Form(NamedTuple):
    """What a program gives in place of logits, and what a verdict says of it: None where nothing is wrong with it."""

    name: str
    wrong: str | None
    values: NDArray[np.float32]


def _forms(logits: NDArray[np.float32], activation: Activation) -> Iterator[_Form]:
    softmax = probabilities(logits, "softmax")
    if activation == "sigmoid":
        sigmoid = probabilities(logits, "sigmoid")
        yield _Form("logits", None, logits)
        yield _Form("probabilities", None, sigmoid)
        yield _Form("sigmoid twice", "B applies sigmoid twice", probabilities(sigmoid, "sigmoid"))
        yield _Form("softmax", "B applies softmax, A sigmoid", softmax)
        return
    yield _Form("logits", None, logits)
    yield _Form("probabilities", None, softmax)
    yield _Form("logarithms of probabilities", None, np.log(np.maximum(softmax, np.float32(1e-38))))
    yield _Form("softmax twice", "B applies softmax twice", probabilities(softmax, "softmax"))
    yield _Form("sigmoid", "B applies sigmoid, A softmax", probabilities(logits, "sigmoid"))


def _apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The largest difference, in parts of the largest distance of a value from the mean of its row."""
    if a.shape != b.shape:
        return float("inf")
    rows = a.reshape(len(a), -1).astype(np.float64)
    spread = float(np.abs(rows - rows.mean(axis=1, keepdims=True)).max())
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(rows - b.reshape(len(b), -1)).max())
    return largest / max(spread, 1e-30) if np.isfinite(largest) else float("inf")


@dataclass(frozen=True, eq=False)
class _Trial:
    """A hypothesis with how far it left A from B."""

    stage: Stage
    cause: str
    left: float
    made: Preparation | None = None


def _with_numbers(a: Classifier, b: ForeignNumbers, images: _Images) -> Difference:
    if len(b.values) != images.named:
        raise DataError(f"{b.path} has {len(b.values)} rows for {images.named} images: give the images of its rows")
    theirs, base = b.values[images.rows], _base(a)
    if b.tensors:
        return _with_tensors(a, b, theirs, images, base)
    classes = a.spec.num_classes
    if theirs.shape[1] not in (classes, classes + 1):
        raise DataError(f"{b.path} has {theirs.shape[1]} columns, and {a.spec.name} has {classes} classes")
    tensors = images.prepared(base)
    ours = _logits(a, tensors)
    distances = [(_apart(form, theirs), name, wrong) for name, wrong, form in _forms(ours, a.spec.activation)]
    distance, form, wrong = min(distances, key=lambda each: each[0])
    steps = [Step("outputs", _finite(distance), distance <= SAME, f"B gives {form}" if distance <= REPRODUCED else "")]
    compared = _Compared(a, str(b.path), images, distance, _changed(a, images, ours, theirs), steps)
    if distance <= SAME and wrong is None:
        return compared.same()
    if distance <= REPRODUCED and wrong is not None:
        causes = [Cause("activation", wrong, distance)]
    elif not np.isfinite(theirs).all():
        return _not_finite(compared, theirs, tensors)
    else:
        causes = _search(a, base, images, tensors, ours, theirs)
    if not causes:
        return compared.same() if distance <= REPRODUCED else compared.unknown()
    return compared.explained(causes)


def _search(
    a: Classifier,
    base: Preparation,
    images: _Images,
    tensors: NDArray[np.float32],
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
) -> list[Cause]:
    """The changes that reproduce `theirs`, nearest first; the nearest alone where a second one is needed with it."""
    order = _order(a, ours, theirs)
    if order is not None:
        return [order]
    few = images.head(SEARCHED)
    wanted = theirs[: len(few.rows)]

    def distance(logits: NDArray[np.float32], target: NDArray[np.float32]) -> float:
        return min(_apart(form, target) for _, wrong, form in _forms(logits, a.spec.activation) if wrong is None)

    def trials(start: Preparation) -> Iterator[_Trial]:
        for change in hypotheses(start.preset):
            made = changed(start, change)
            if made is not None and (a.spec.graph is None or made.preset.size == a.spec.preset.size):
                logits = _logits(a, few.prepared(made))
                yield _Trial(change.stage, change.cause, distance(logits, wanted), made)

    before = distance(ours[: len(few.rows)], wanted)
    tried = list(trials(base))
    if a.spec.graph is None:
        tried += [
            _Trial("network", change.cause, distance(change.logits, theirs[: len(change.logits)]))
            for change in network_changes(a.spec, tensors[:AT_ONCE])
        ]
    return _one_or_two(tried, trials, before)


def _one_or_two(
    tried: Sequence[_Trial], trials: Callable[[Preparation], Iterator[_Trial]], before: float
) -> list[Cause]:
    """The trials that reproduce B; else two changes that do together, of which the first brings A nearer alone."""
    found = _reproducing(tried, before)
    if found:
        return [Cause(trial.stage, trial.cause, trial.left) for trial in found]
    nearest = sorted((trial for trial in tried if trial.left < before), key=lambda trial: trial.left)[:FOLLOWED]
    for first in nearest:
        if first.made is not None and (second := _reproducing(list(trials(first.made)), first.left)):
            return [Cause(trial.stage, trial.cause, trial.left) for trial in (first, second[0])]
    return []


def _reproducing(tried: Sequence[_Trial], before: float) -> list[_Trial]:
    """Those that come to B's numbers, clearly nearer than without them; of these the ones as near as the nearest."""
    near = [trial for trial in tried if trial.left <= REPRODUCED and trial.left * BETTER <= before]
    near.sort(key=lambda trial: trial.left)
    return [trial for trial in near if trial.left <= max(BETTER * near[0].left, SAME / BETTER)]


def _order(a: Classifier, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Cause | None:
    """Whether B's columns are A's in another order."""
    for name, _, form in _forms(ours, a.spec.activation):
        if theirs.shape[1] == form.shape[1] + 1:
            left = _apart(form, theirs[:, 1:]) if name == "logits" else float("inf")
            if left <= REPRODUCED:
                return Cause("classes", "B has a class more than A, before the others", left)
            continue
        columns = [int(np.abs(form - column[:, None]).max(axis=0).argmin()) for column in theirs.T]
        left = _apart(form[:, columns], theirs)
        if left <= REPRODUCED and sorted(columns) == list(range(form.shape[1])):
            return Cause("classes", f"B has its classes in another order{_kind_of_order(a, columns)}", left)
    return None


def _kind_of_order(a: Classifier, columns: Sequence[int]) -> str:
    numbers, names, ids = range(len(columns)), a.spec.classes.names(), a.spec.classes.ids
    if list(columns) == sorted(numbers, key=str):
        return ", by their numbers as text (0, 1, 10, …)"
    if list(columns) == sorted(numbers, key=lambda number: names[number]):
        return ", by their names"
    if list(columns) == sorted(numbers, key=lambda number: ids[number]):
        return ", by their ids"
    return ", backwards" if list(columns) == list(reversed(numbers)) else ""


def _with_tensors(
    a: Classifier, b: ForeignNumbers, theirs: NDArray[np.float32], images: _Images, base: Preparation
) -> Difference:
    ours = images.prepared(base)
    distance = _apart(ours, theirs)
    shown = f"A {list(ours.shape[1:])}, B {list(theirs.shape[1:])}"
    steps = [Step("input tensor", _finite(distance), distance <= SAME, shown)]
    fits = theirs.shape[1:] == ours.shape[1:]
    classes = _changed(a, images, _logits(a, ours), _logits(a, np.ascontiguousarray(theirs))) if fits else ()
    compared = _Compared(a, str(b.path), images, distance, classes, steps)
    if distance <= SAME:
        return compared.same()
    if theirs.shape[1] != ours.shape[1]:
        return compared.unknown()
    sized = _sized(base, theirs)
    start = base if sized is None else sized.apply(base)

    few = images.head(SEARCHED)
    wanted = theirs[: len(few.rows)]

    def trials(start: Preparation) -> Iterator[_Trial]:
        for change in hypotheses(start.preset):
            if (made := changed(start, change)) is not None:
                yield _Trial(change.stage, change.cause, _apart(few.prepared(made), wanted), made)

    tried = list(trials(start))
    if sized is not None:
        tried.append(_Trial(sized.stage, sized.cause, _apart(few.prepared(start), wanted), start))
    causes = _one_or_two(tried, trials, _apart(ours[: len(wanted)], wanted))
    if not causes:
        return compared.same() if distance <= REPRODUCED else compared.unknown()
    return compared.explained(causes)


def _sized(base: Preparation, theirs: NDArray[np.float32]) -> Change | None:
    height, width = theirs.shape[2:]
    if (height, width) == base.preset.size:
        return None
    return declared(base.preset, base.preset.at((height, width)))[0]


def _with_model(a: Classifier, b: Classifier, images: _Images) -> Difference:
    start, end = _base(a), _base(b)
    tensors_a, tensors_b = images.prepared(start), images.prepared(end)
    ours, theirs = _logits(a, tensors_a), _logits(b, tensors_b)
    prepared = _apart(tensors_a, tensors_b)
    steps = [Step("decode", 0.0, True), Step("input tensor", _finite(prepared), prepared <= SAME)]
    columns, causes = _columns(a, b), list[Cause]()
    fits = tensors_a.shape == _shape(b, len(tensors_a))
    on_ours = _logits(b, tensors_a) if fits else None  # which tells networks from preparations
    compared = theirs if on_ours is None else on_ours
    renamed = columns is not None and _apart(ours, compared) < _apart(ours, compared[:, columns])
    aligned = theirs
    if columns is not None and not renamed:  # the two list their classes in different orders, and both are right
        aligned, on_ours = theirs[:, columns], None if on_ours is None else on_ours[:, columns]
    distance = _apart(ours, aligned)
    for change in declared(start.preset, end.preset):
        before = images.prepared(start)
        start = change.apply(start)
        after = images.prepared(start)
        if np.array_equal(before, after):
            steps.append(Step(change.stage, 0.0, True, f"{change.cause}: of no effect on these images"))
            continue
        left = _apart(_logits(a, after), aligned) if start.preset.size == a.spec.preset.size else float("inf")
        causes.append(Cause(change.stage, change.cause, left))
    if on_ours is not None:
        network = _apart(ours, on_ours)
        steps.append(Step("network", _finite(network), network <= SAME, "both on A's input"))
        if network > SAME:
            reasons = _of_networks(a, b, tensors_a, ours, on_ours, steps)
            causes.extend(reasons or [Cause("network", UNEXPLAINED, network)])
    else:
        steps.append(Step("network", None, False, "the two take images of different shapes"))
    steps.append(Step("logits", _finite(distance), distance <= SAME))
    if renamed:
        causes.append(Cause("classes", "B names its classes in another order", distance))
    elif columns is None and set(a.spec.classes.names()) != set(b.spec.classes.names()):
        causes.append(Cause("classes", "B has other classes than A", distance))
    if a.spec.activation != b.spec.activation:
        text = f"B makes scores by {b.spec.activation}, A by {a.spec.activation}"
        causes.append(Cause("activation", text, distance))
    if not _same_thresholds(a, b):
        causes.append(Cause("classes", "B has other thresholds than A", distance))
    compared = _Compared(a, _named(b), images, distance, _changed(a, images, ours, theirs, b), steps)
    if causes:
        return compared.explained(causes, declared_of_both=True)
    return compared.same() if distance <= SAME else compared.unknown()


def _of_networks(
    a: Classifier,
    b: Classifier,
    tensors: NDArray[np.float32],
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    steps: list[Step],
) -> list[Cause]:
    """Why two networks give different logits for the same input."""
    left = _apart(ours, theirs)
    if not np.isfinite(theirs).all():
        layer = overflowing_layer(a.spec, tensors) if a.spec.graph is None else None
        return [Cause("network", _overflow(layer), left)] if layer else []
    if a.spec.arch != b.spec.arch:
        return [Cause("network", f"B is a network of another kind, {b.spec.arch}; A is {a.spec.arch}", left)]
    if (a.spec.graph, b.spec.graph) == (None, None):
        parting = first_parting(a.spec, b.spec, tensors[:2])
        if parting is not None:
            if parting.layer:
                steps.append(Step("layers", parting.difference, False, f"they part at {parting.layer}"))
            return [Cause("network", parting.text, left)]
    if (order := _order(a, ours, theirs)) is not None:
        return [order]
    if b.engine.precision != a.engine.precision:
        return [Cause("network", f"B computes in {b.engine.precision}, A in {a.engine.precision}", left)]
    return []


def _columns(a: Classifier, b: Classifier) -> list[int] | None:
    """For each class of A its column in B's outputs; None where it is the same, or the classes are others."""
    mine, other = a.spec.classes.ids, b.spec.classes.ids
    if mine == other:  # files of labels change names alone
        mine, other = a.spec.classes.names(), b.spec.classes.names()
    if len(set(mine)) < len(mine) or mine == other or sorted(mine) != sorted(other):
        return None
    places = {name: place for place, name in enumerate(other)}
    return [places[name] for name in mine]


def _same_thresholds(a: Classifier, b: Classifier) -> bool:
    if a.thresholds is None or b.thresholds is None:
        return a.thresholds is b.thresholds
    return np.array_equal(a.thresholds, b.thresholds)


def _shape(model: Classifier, count: int) -> tuple[int, ...]:
    return (count, model.spec.in_channels, *model.spec.preset.size)


def _changed(
    a: Classifier,
    images: _Images,
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    b: Classifier | None = None,
) -> tuple[ChangedClass, ...]:
    first = _classes(a, ours)
    second = _classes(a if b is None else b, theirs, scores=b is None and _are_scores(theirs))
    classes = zip(first, second, strict=True)
    return tuple(
        ChangedClass(source, mine, yours)
        for source, (mine, yours) in zip(images.sources, classes, strict=True)
        if mine != yours
    )


def _classes(model: Classifier, values: NDArray[np.float32], *, scores: bool = False) -> list[str]:
    """What the model says of each image: its likeliest class, or all above their thresholds where it has several."""
    names = model.names if values.shape[1] == len(model.names) else ("?", *model.names)
    if not model.spec.multi_label or len(names) != len(model.names):
        return [names[likeliest] for likeliest in values.argmax(axis=1)]
    least = 0.0 if model.thresholds is None else model.thresholds
    above = (values if scores else probabilities(values, "sigmoid")) >= least
    return [", ".join(name for name, there in zip(names, row, strict=True) if there) or "–" for row in above]


def _are_scores(values: NDArray[np.float32]) -> bool:
    return bool((values >= 0).all() and (values <= 1).all())


def _overflow(layer: str) -> str:
    return f"B overflows in fp16: the outputs of {layer} exceed 65,504"


def _not_finite(compared: _Compared, theirs: NDArray[np.float32], tensors: NDArray[np.float32]) -> Difference:
    bad = ~np.isfinite(theirs).all(axis=1)
    step = Step("outputs", None, False, f"{int(bad.sum())} of {len(theirs)} rows of B are inf or NaN")
    compared = replace(compared, steps=[step])
    spec = compared.a.spec
    layer = overflowing_layer(spec, tensors[bad]) if spec.graph is None else None
    if layer is None:
        return compared.unknown()
    return compared.explained([Cause("network", _overflow(layer), float("inf"))])


@dataclass(frozen=True, eq=False)
class _Compared:
    """Two deployments on the same images: how far they are apart, and what can be said of that."""

    a: Classifier
    b: str
    images: _Images
    largest: float
    changed: tuple[ChangedClass, ...]
    steps: Sequence[Step]

    def same(self) -> Difference:
        far = self.largest
        verdict = f"A and B are the same: their largest difference is {far:.1e} of the spread of the values"
        if far > SAME:
            verdict = f"A and B are the same but for rounding: they differ by {far:.1e} of the spread of the values"
        return self._found(verdict, same=True)

    def unknown(self) -> Difference:
        far = self.largest
        verdict = "B differs from A, and no change that was tried explains it; its values are not finite or not as many"
        if np.isfinite(far):
            verdict = (
                f"B differs from A by {far:.1e} of the spread of the values, and no change that was tried explains it"
            )
        return self._found(verdict)

    def explained(self, causes: Sequence[Cause], *, declared_of_both: bool = False) -> Difference:
        first = causes[0]
        if not declared_of_both and len(causes) > 1 and first.left > REPRODUCED >= causes[1].left:
            verdict = f"{first.text}; and {causes[1].text}: with both A gives B's values within {causes[1].left:.1e}"
        elif declared_of_both or not np.isfinite(first.left) or first.left > REPRODUCED:
            verdict = first.text
        else:
            verdict = f"{first.text}: with this change A gives B's values within {first.left:.1e} of their spread"
            if len(causes) > 1:
                verdict = f"{verdict}; these images do not tell it from the other causes that are listed"
        return self._found(verdict, causes)

    def _found(self, verdict: str, causes: Sequence[Cause] = (), *, same: bool = False) -> Difference:
        return Difference(
            a=_named(self.a),
            b=self.b,
            images=len(self.images.rows),
            unreadable=self.images.named - len(self.images.rows),
            same=same,
            largest=_finite(self.largest),
            changed=self.changed,
            steps=tuple(self.steps),
            causes=tuple(causes),
            verdict=verdict,
        )


def _named(model: Classifier) -> str:
    return f"{model.spec.path or model.spec.name} ({model.engine_name})"


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _plain(value: object) -> object:
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple():
            return [_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        case float():
            return _finite(value)
        case _:
            return value
