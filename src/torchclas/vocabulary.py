"""The values that options take, said once for the command line, engines, exports, training and servers."""

from __future__ import annotations

from typing import Literal, get_args

EngineName = Literal["torch", "compile", "onnxruntime", "openvino", "ncnn", "mnn", "executorch"]
EngineChoice = Literal["auto", EngineName]
Precision = Literal["fp32", "bf16", "fp16", "int8"]  # of what runs a network
TrainingPrecision = Literal["fp32", "bf16", "fp16"]

Output = Literal["logits", "embedding"]  # what a network gives; the embedding is the vector before the classifier
Activation = Literal["softmax", "sigmoid"]  # one class per image, or any number of them
Fit = Literal["crop", "squeeze", "pad"]  # how an image of another shape comes to its size

TestTimeAugmentation = Literal["flip", "five-crop"]  # views of an image whose scores are averaged

ExportFormat = Literal["onnx", "openvino", "torch-export", "tensorrt", "timm", "ncnn", "mnn", "executorch", "web"]
ExportPrecision = Literal["fp32", "fp16"]  # of the numbers in an exported file
ExportInput = Literal["float32", "uint8"]  # prepared images, or pixels that the graph prepares

RowFormat = Literal["table", "jsonl", "csv", "parquet"]  # of predictions
VectorFormat = Literal["parquet", "npz", "safetensors"]  # of embeddings
VectorType = Literal["fp32", "fp16"]  # of the numbers of an embedding
Language = Literal["en", "zh"]
Order = Literal["catalog", "name", "top1", "params", "flops", "latency-v100", "latency-sd855", "latency-xeon6148"]

Strategy = Literal["ddp", "fsdp"]  # how several devices share the work of training
DistillationMethod = Literal["ssld", "ce", "dkd"]
BatchNormMode = Literal["eval", "train"]  # of a teacher

INPUT = "images"  # what exported graphs call what they take; what they give is called as `Output` says

OUTPUTS: tuple[Output, ...] = get_args(Output)
TEST_TIME_AUGMENTATIONS: tuple[TestTimeAugmentation, ...] = get_args(TestTimeAugmentation)
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
LANGUAGES: tuple[Language, ...] = get_args(Language)
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
ROW_FORMATS: tuple[RowFormat, ...] = get_args(RowFormat)
