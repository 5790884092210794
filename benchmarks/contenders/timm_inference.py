"""What timm's inference.py does, which its wheel leaves out: a folder of pictures → a CSV of classes, on a CPU.

The steps, calls and defaults are the script's (dataset, loader with its prefetcher and two workers, top-k, labels, a
log line every ten batches, one table at the end); the table is written with the standard library instead of pandas,
whose import the script pays for. Weights are random, for without a network there are none; they do not change the time.
With the original at hand, `predict.py --timm-script inference.py` runs that instead.
"""

import argparse
import csv
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.data import (
    DatasetInfoLabelMapper,
    ImageNetInfo,
    create_dataset,
    create_loader,
    infer_imagenet_subset,
    resolve_input_data_config,
)
from timm.utils import AverageMeter, setup_default_logging

LOG = logging.getLogger("inference")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--topk", type=int, default=5)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--results-dir", type=Path, required=True)
    args = parser.parse_args()
    setup_default_logging()

    network = timm.create_model(args.model, pretrained=False).eval()
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    config = resolve_input_data_config(network, {}, use_test_size=True)
    dataset: Any = create_dataset(root=args.data_dir, name="", split="validation")
    loader: Any = create_loader(
        dataset,
        batch_size=args.batch_size,
        use_prefetcher=True,
        num_workers=args.workers,
        device=torch.device("cpu"),
        **config,
    )
    names = DatasetInfoLabelMapper(
        ImageNetInfo(infer_imagenet_subset({"num_classes": network.num_classes}) or "imagenet-1k"),
        label_type="description",
    )
    label = np.vectorize(names, otypes=[object])

    indices, labels, scores = [], [], []
    batch_time, start = AverageMeter(), time.time()
    with torch.inference_mode():
        for number, (images, _) in enumerate(loader):
            best, index = network(images).softmax(-1).topk(args.topk)
            indices.append(index.numpy())
            labels.append(label(index.numpy()))
            scores.append(best.numpy())
            batch_time.update(time.time() - start)
            start = time.time()
            if number % 10 == 0:
                LOG.info(f"Predict: [{number}/{len(loader)}] Time {batch_time.val:.3f} ({batch_time.avg:.3f})")

    args.results_dir.mkdir(parents=True, exist_ok=True)
    with (args.results_dir / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "index", "label", "prob"])
        columns = (np.concatenate(column).tolist() for column in (indices, labels, scores))
        writer.writerows(sorted(zip(loader.dataset.filenames(basename=True), *columns, strict=True)))


if __name__ == "__main__":
    main()
