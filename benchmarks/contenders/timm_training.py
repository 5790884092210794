"""What timm's train.py does on one CPU, which its wheel leaves out: it trains, validates and saves, epoch by epoch.

The steps, calls and defaults are the script's: dataset, loader with its prefetcher, optimizer, smoothed loss, meters, a
scheduler that is stepped at each update, checkpoints. It takes the script's options and logs the script's lines, as far
as training.py needs them. With the original at hand, `training.py --timm-script train.py` runs that instead.
"""

import argparse
import logging
import time
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.models import create_model
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.utils import AverageMeter, CheckpointSaver, accuracy, random_seed, setup_default_logging
from torch import nn

LOG = logging.getLogger("train")
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--num-classes", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--opt", default="sgd")
    parser.add_argument("--opt-eps", type=float)
    parser.add_argument("--opt-betas", type=float, nargs="+")
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=2e-5)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--sched", default="cosine")
    parser.add_argument("--warmup-epochs", type=int, default=5)
    parser.add_argument("--smoothing", type=float, default=0.1)
    parser.add_argument("--color-jitter", type=float, default=0.4)
    parser.add_argument("--train-interpolation", default="random")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--amp-dtype", default="float16")
    parser.add_argument("--torchcompile", nargs="?", const="inductor")
    parser.add_argument("--log-interval", type=int, default=50)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    setup_default_logging()
    random_seed(42)

    model = create_model(args.model, num_classes=args.num_classes)
    config = resolve_data_config({}, model=model)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(cfg=args))
    trained: Any = torch.compile(model, backend=args.torchcompile) if args.torchcompile else model
    train, evaluate = loaders(args, config)
    settings: dict[str, Any] = scheduler_kwargs(args)
    scheduler, epochs = create_scheduler_v2(optimizer, **settings, updates_per_epoch=len(train))
    assert scheduler is not None
    args.output.mkdir(parents=True, exist_ok=True)
    saver = CheckpointSaver(model=model, optimizer=optimizer, args=args, checkpoint_dir=str(args.output))
    for epoch in range(epochs):
        train_epoch(epoch, trained, train, optimizer, scheduler, args)
        saver.save_checkpoint(epoch, metric=validate(trained, evaluate, args))
        scheduler.step(epoch + 1)


def loaders(args: argparse.Namespace, config: dict[str, Any]) -> tuple[Any, Any]:
    dataset: Any = create_dataset
    common: dict[str, Any] = {
        "input_size": config["input_size"],
        "batch_size": args.batch_size,
        "mean": config["mean"],
        "std": config["std"],
        "num_workers": args.workers,
        "device": CPU,
        "use_prefetcher": True,
    }
    train = create_loader(
        dataset("", root=args.data_dir, split="train", is_training=True),
        is_training=True,
        color_jitter=args.color_jitter,
        interpolation=args.train_interpolation,
        **common,
    )
    evaluate = create_loader(
        dataset("", root=args.data_dir, split="validation"),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
        **common,
    )
    return train, evaluate


def autocast(args: argparse.Namespace) -> Any:
    return torch.autocast("cpu", dtype=getattr(torch, args.amp_dtype)) if args.amp else nullcontext()


def train_epoch(
    epoch: int, model: nn.Module, loader: Any, optimizer: Any, scheduler: Any, args: argparse.Namespace
) -> None:
    loss_function = LabelSmoothingCrossEntropy(smoothing=args.smoothing)
    update_time, data_time, losses = AverageMeter(), AverageMeter(), AverageMeter()
    model.train()
    start = data_start = time.time()
    optimizer.zero_grad()
    for index, (images, labels) in enumerate(loader):
        if args.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        data_time.update(time.time() - data_start)
        with autocast(args):
            loss = loss_function(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
        optimizer.zero_grad()
        now = time.time()
        update_time.update(now - start)
        start = now
        if index % args.log_interval == 0:
            LOG.info(
                f"Train: {epoch} [{index:>4d}/{len(loader)}]  Loss: {losses.val:#.3g} ({losses.avg:#.3g})  "
                f"Time: {update_time.val:.3f}s, {len(images) / update_time.val:>7.2f}/s  "
                f"({update_time.avg:.3f}s, {len(images) / update_time.avg:>7.2f}/s)  "
                f"Data: {data_time.val:.3f} ({data_time.avg:.3f})"
            )
        scheduler.step_update(num_updates=epoch * len(loader) + index + 1, metric=losses.avg)
        data_start = time.time()


@torch.no_grad()
def validate(model: nn.Module, loader: Any, args: argparse.Namespace) -> float:
    top1 = AverageMeter()
    model.eval()
    for images, labels in loader:
        if args.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(args):
            logits = model(images)
        top1.update(accuracy(logits, labels)[0].item(), len(images))
    LOG.info(f"Test: {OrderedDict(top1=top1.avg)}")
    return top1.avg


if __name__ == "__main__":
    main()
