"""Classify a picture with ONNX Runtime alone: neither torchclas nor PyTorch is needed here.

    torchclas export EfficientNet_lite0 --to onnx --input uint8 -o model.onnx
    pip install onnxruntime pillow
    python classify_onnxruntime.py model.onnx photo.jpg

A model that was exported with `--input uint8` takes the pixels of pictures of any size and prepares them itself.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, photo = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
labels = session.get_modelmeta().custom_metadata_map["labels"].split("\n")

picture = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")  # as the camera was held
pixels = np.asarray(picture)[None]  # [1, height, width, 3], uint8

(logits,) = session.run(["logits"], {"images": pixels})[0]
weights = np.exp(logits - logits.max())
probabilities = weights / weights.sum()
for index in np.argsort(-probabilities)[:5]:
    print(f"{probabilities[index]:.6f} {labels[index]}")
