"""Routes of our own: an image in, its classes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel

from torchclas.data.decode import Pixels
from torchclas.data.loader import load_one
from torchclas.data.preprocess import NoPreprocess, Preprocess
from torchclas.errors import Error, ImageError, OutputError, UnknownNameError
from torchclas.inference.classifier import Embedding, Prediction
from torchclas.metrics.scores import probabilities
from torchclas.reporting.heat import draw
from torchclas.reporting.zoo_overview import zoo_overview
from torchclas.serving.bodies import IMAGES, Sent, read_images
from torchclas.serving.models import Model
from torchclas.serving.refusals import Refusal, bad_image
from torchclas.serving.service import Service
from torchclas.vocabulary import Language

EXPLAINED_SIDE = 960  # pixels of a picture below its heat map, at most


class Problem(BaseModel):
    """What went wrong: `kind` for programs, the rest for people."""

    kind: str
    message: str
    hint: str


class Refused(BaseModel):
    """The body of every answer that is an error."""

    error: Problem


class ClassScore(BaseModel):
    """A class of an image and how likely it is."""

    class_id: str
    label: str
    score: float


class PredictionRow(BaseModel):
    """The classes of one image, best first, or why there are none."""

    source: str
    status: Literal["ok", "error"]
    classes: list[ClassScore]
    error: str | None


class Predictions(BaseModel):
    """A row for each image, in order."""

    model: str
    engine: str
    seconds: float
    predictions: list[PredictionRow]


class EmbeddingRow(BaseModel):
    """The vector of one image, or why there is none."""

    source: str
    status: Literal["ok", "error"]
    embedding: list[float] | None
    error: str | None


class Embeddings(BaseModel):
    """A row for each image, in order."""

    model: str
    engine: str
    seconds: float
    embeddings: list[EmbeddingRow]


class ModelRow(BaseModel):
    """A model that is open."""

    name: str
    arch: str
    num_classes: int
    activation: str
    languages: list[str]
    outputs: list[str]
    explains: bool
    preset: dict[str, Any] | None  # none where the model takes images as they are
    engine: str
    precision: str
    version: str


class Models(BaseModel):
    """The models that are open."""

    models: list[ModelRow]


class ClassRow(BaseModel):
    """A class."""

    class_id: str
    label: str


class Classes(BaseModel):
    """The classes of a model, in the order of its outputs."""

    model: str
    version: str
    classes: list[ClassRow]


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused, "description": what}
    for status, what in {
        400: "The request cannot be understood",
        401: "The token is missing or wrong",
        404: "There is no such model",
        408: "The body took too long",
        413: "The body, or the number of images, is too large",
        415: "The body is of a kind that is not taken",
        422: "A parameter or the only image is wrong",
        429: "The queue is full; ask again after `Retry-After` seconds",
        503: "The model is not loaded, or the service is ending",
        504: "No answer was ready in time",
    }.items()
}

_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}

router = APIRouter(prefix="/v1", responses=_REFUSALS)

Name = Annotated[str | None, Query(description="Default: the first model that the service was started with.")]
TopK = Annotated[int | None, Query(ge=1, le=100_000, description="Classes of an image at most.")]
Lang = Annotated[Language | None, Query(description="Language of the class names.")]
ClassName = Annotated[
    str | None,
    Query(alias="class", max_length=300, description="Id, name or number of a class. Default: the likeliest."),
]
Threshold = Annotated[float | None, Query(ge=0, le=1, description="Leave out classes that score less.")]


@router.post("/classify", response_model=Predictions, openapi_extra=IMAGES)
async def classify(
    request: Request, model: Name = None, top_k: TopK = None, lang: Lang = None, threshold: Threshold = None
) -> Response:
    """Classify an image, or each file of a form."""
    service, start = _service(request), time.perf_counter()

    async def work(model: Model, images: list[Sent]) -> dict[str, Any]:
        classifier, rows = model.classifier, list[Prediction]()
        model.check("logits")
        _check_language(model, lang)
        for image, row in zip(images, await service.rows(model, images), strict=True):
            if isinstance(row, ImageError):
                rows.append(Prediction(image.name, "error", error=str(row)))
            else:
                scores = probabilities(row["logits"][None], classifier.spec.activation)[0]
                rows.append(classifier.prediction(image.name, scores, top_k=top_k, threshold=threshold, lang=lang))
        _count(service, model, rows)
        return _about(model, start, predictions=[_prediction(row) for row in rows])

    return JSONResponse(await service.answer(request, model, read_images, work))


@router.post("/embed", response_model=Embeddings, openapi_extra=IMAGES)
async def embed(request: Request, model: Name = None) -> Response:
    """The embedding of an image, or of each file of a form."""
    service, start = _service(request), time.perf_counter()

    async def work(model: Model, images: list[Sent]) -> dict[str, Any]:
        model.check("embedding")
        rows = [
            Embedding(image.name, "error", error=str(row))
            if isinstance(row, ImageError)
            else model.classifier.embedding(image.name, row["embedding"])
            for image, row in zip(images, await service.rows(model, images), strict=True)
        ]
        _count(service, model, rows)
        return _about(model, start, embeddings=[_embedding(row) for row in rows])

    return JSONResponse(await service.answer(request, model, read_images, work))


@router.post("/view", response_class=Response, openapi_extra=IMAGES, responses=_PNG)
async def view(request: Request, model: Name = None) -> Response:
    """What the network sees of an image, as PNG."""
    service = _service(request)

    async def work(model: Model, images: list[Sent]) -> bytes:
        preprocess = model.classifier.preprocess
        if isinstance(preprocess, NoPreprocess):
            raise Refusal(400, "bad_request", f"{model.name} takes images as they are", "there is nothing else to see")
        prepared = await _only(service, images, preprocess)
        return await service.on_thread(lambda: _png(preprocess.pixels(prepared)))

    return Response(await service.answer(request, model, read_images, work), media_type="image/png")


@router.post("/explain", response_class=Response, openapi_extra=IMAGES, responses=_PNG)
async def explain(request: Request, model: Name = None, class_name: ClassName = None) -> Response:
    """Where in an image the model sees a class: a heat map over the picture, as PNG."""
    service = _service(request)

    async def work(model: Model, images: list[Sent]) -> bytes:
        explainer = await model.explainer()
        try:
            asked = [] if class_name is None else [explainer.index_of(class_name)]
        except UnknownNameError as error:
            message, _, hint = str(error).partition(": ")
            raise Refusal(422, "bad_parameter", message, hint) from None
        picture = await _only(service, images, NoPreprocess(service.options.max_pixels))
        explanation = await model.on_thread(explainer.of_picture, images[0].name, picture, asked)
        if explanation.error:
            raise Error(explanation.error)
        return await service.on_thread(lambda: _png(np.asarray(draw(explanation, 0, EXPLAINED_SIDE))))

    return Response(await service.answer(request, model, read_images, work), media_type="image/png")


@router.get("/models")
async def models(request: Request) -> Models:
    """The models that are open."""
    return Models(models=[_model(model) for model in _service(request).registry.opened])


@router.get("/models/{name}/classes")
async def classes(request: Request, name: str, lang: Lang = None) -> Classes:
    """The classes of a model, in the order of its outputs."""
    model = _service(request).registry.find(name)
    _check_language(model, lang)
    labels = model.classifier.spec.classes
    rows = zip(labels.ids, labels.names(lang or "en"), strict=True)
    return Classes(
        model=model.name,
        version=model.version,
        classes=[ClassRow(class_id=class_id, label=label) for class_id, label in rows],
    )


@router.get("/zoo", response_class=JSONResponse)
def zoo() -> dict[str, Any]:
    """Every published model with its figures, and what was timed on this machine."""
    try:
        return zoo_overview()
    except OutputError:  # timings of another version: clients can do nothing about them
        return zoo_overview(timings=False)


def _service(request: Request) -> Service:
    return request.app.state.service


async def _only(service: Service, images: list[Sent], preprocess: Preprocess | NoPreprocess) -> NDArray[Any]:
    """The image of a request that can have but one, prepared; raises Refusal."""
    if len(images) > 1:
        raise Refusal(400, "bad_request", f"{len(images)} images were sent", "send one")
    prepared = await service.on_thread(load_one, images[0].name, images[0].content, preprocess)
    if isinstance(prepared, ImageError):
        raise bad_image(str(prepared))
    return prepared


def _check_language(model: Model, lang: Language | None) -> None:
    languages = model.classifier.spec.classes.languages
    if lang is not None and lang not in languages:
        raise Refusal(
            422, "bad_parameter", f"the classes of {model.name} have no names in {lang}", f"ask for {languages[0]}"
        )


def _count(service: Service, model: Model, rows: Sequence[Prediction] | Sequence[Embedding]) -> None:
    """Count the rows; raises Refusal where the only image of a request is an error."""
    for row in rows:
        service.metrics.image(model.name, row.status)
    if len(rows) == 1 and rows[0].status == "error":
        raise bad_image(rows[0].error or "cannot be read")


def _about(model: Model, start: float, **rows: Any) -> dict[str, Any]:
    seconds = round(time.perf_counter() - start, 6)
    return {"model": model.name, "engine": model.classifier.engine_name, "seconds": seconds, **rows}


def _prediction(row: Prediction) -> dict[str, Any]:
    found = zip(row.class_ids, row.labels, row.scores, strict=True)
    classes = [{"class_id": class_id, "label": label, "score": score} for class_id, label, score in found]
    return {"source": row.source, "status": row.status, "classes": classes, "error": row.error}


def _embedding(row: Embedding) -> dict[str, Any]:
    vector = None if row.vector is None else row.vector.tolist()
    return {"source": row.source, "status": row.status, "embedding": vector, "error": row.error}


def _model(model: Model) -> ModelRow:
    spec, engine = model.classifier.spec, model.classifier.engine
    return ModelRow(
        name=model.name,
        arch=spec.arch,
        num_classes=spec.num_classes,
        activation=spec.activation,
        languages=list(spec.classes.languages),
        outputs=list(spec.outputs),
        explains=model.explains,
        preset=None if spec.pixels else spec.preset.to_dict(),
        engine=engine.name,
        precision=engine.precision,
        version=model.version,
    )


def _png(pixels: Pixels) -> bytes:
    done, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError("OpenCV wrote no PNG")
    return encoded.tobytes()
