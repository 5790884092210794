"""Every model by its published name, for `torch.hub.load("…/torchclas", "ResNet50_vd", pretrained=True)`."""

# Modules are imported whole: torch.hub takes every function and class here for an entry.
import functools
import pathlib
import sys

# torch.hub imports this file alone, from a copy of the repository that need not be installed.
sys.path.insert(0, str(pathlib.Path(__file__).parent / "src"))

import torchclas

# What torch.hub looks for before it calls an entry.
dependencies = ["torch", "numpy", "cv2", "PIL", "safetensors", "filelock", "requests", "typing_extensions"]


def _entry(name: str) -> functools.partial[object]:
    entry = functools.partial[object](torchclas.create_model, name)
    entry.__doc__ = f"{name}, as `torchclas info {name}` describes it; takes what `torchclas.create_model` takes."
    return entry


globals().update({name: _entry(name) for name in torchclas.list_models()})
