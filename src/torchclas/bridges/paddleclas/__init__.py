"""PaddleClas projects: what a configuration of PaddleClas 2.5 or 2.6 means here."""

from __future__ import annotations

from torchclas.bridges.paddleclas.account import ConfigError, Finding, Stage
from torchclas.bridges.paddleclas.project import Project, open_project
from torchclas.bridges.paddleclas.running import Training, Use, training, using

__all__ = ["ConfigError", "Finding", "Project", "Stage", "Training", "Use", "open_project", "training", "using"]
