"""Models for data sets of Ray Data, and for other engines that map batches of Arrow tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchclas.errors import DataError, MissingDependencyError
from torchclas.inference.classifier import Classifier

if TYPE_CHECKING:
    from ray.data import Dataset

BATCHES = 8  # of the network, in a batch of the data set: images are read while others are computed


class Predictor:
    """A model for `map_batches`: an Arrow table with images in, the same table with predictions out.

    `column` has the paths or URLs of images, or their bytes. Columns `status`, `labels`, `scores`, `class_ids`, `error`
    and `engine` are added, as `predict` writes them: one row for each, in order; an image that cannot be read has
    `status` error. `model` and `options` are the arguments of `torchclas.Classifier`.

    It needs nothing of Ray: Spark's `mapInArrow` and others take it as well.

    Raises:
        What `torchclas.Classifier` does.
    """

    def __init__(self, model: str | Path | None = None, *, column: str = "path", **options: Any) -> None:
        self.column = column
        self.classifier = Classifier(model, **options)

    def __call__(self, batch: Any) -> Any:
        """Add the predictions for a batch; raises `DataError` where the column is missing or holds something else."""
        import pyarrow as arrow

        if self.column not in batch.column_names:
            raise DataError(
                f"no column {self.column}, but {', '.join(batch.column_names)}: name the one with the images"
            )
        images = batch.column(self.column).to_pylist()
        if wrong := [image for image in images if not isinstance(image, (str, bytes, type(None)))]:
            raise DataError(f"the column {self.column} holds {type(wrong[0]).__name__}, not paths or bytes of images")
        rows = [asdict(row) for row in self.classifier.predict("" if image is None else image for image in images)]
        text, texts = arrow.string(), arrow.list_(arrow.string())
        kinds = {"status": text, "labels": texts, "scores": arrow.list_(arrow.float32()), "class_ids": texts}
        for name, kind in {**kinds, "error": text, "engine": text}.items():
            batch = batch.append_column(name, arrow.array([row[name] for row in rows], kind))
        return batch


def predict(
    dataset: Dataset,
    model: str | Path | None = None,
    *,
    column: str = "path",
    workers: int | None = None,
    threads: int = 1,
    gpus: float = 0,
    **options: Any,
) -> Dataset:
    """A data set of Ray Data with predictions beside what it has, computed by workers that hold one model each.

    `column` has paths, URLs or bytes of images; see `Predictor` for what is added, and for `model` and `options`. At
    most `workers` run at once (default: as many as the cluster has room for), with `threads` CPUs and `gpus` GPUs each.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy
    except ImportError:
        raise MissingDependencyError("ray", "'torchclas[cluster]'") from None
    if workers is None:
        resources: Any = ray.cluster_resources() if ray.is_initialized() else {}
        workers = max(1, int(resources.get("CPU", 1) // threads))
    return dataset.map_batches(
        Predictor,
        fn_constructor_args=(model,),
        fn_constructor_kwargs={"column": column, "threads": threads, "workers": 1, **options},
        batch_format="pyarrow",
        batch_size=BATCHES * options.get("batch_size", 16),
        compute=ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=threads,
        num_gpus=gpus,
    )
