# A fresh machine needs Python 3.11, 3.12 or 3.13 and make. "make help" says what there is.

PYTHON ?= python3
VENV ?= .venv
DATA ?= ../shared/data
OUT ?= demo-output
RUNS ?= runs
CT ?=
CPU ?=
WORKERS ?= 2
SET ?=

BIN = $(VENV)/bin
READY = $(VENV)/.ready
REFERENCE = .venv-nnunet
REFERENCE_READY = $(REFERENCE)/.ready
MODELS = LiverCascade/Resources/Models
CONFIGS = LiverCascadeTraining/Resources/Configurations
SAMPLE = LiverCascade/Resources/SampleData/synthetic_abdomen.nii.gz
CPU_WHEELS = https://download.pytorch.org/whl/cpu

.PHONY: help setup demo test test-long bench screenshots train-default train-small example clean

help:
	@echo "make setup           creates $(VENV) with everything in it (CPU=1: PyTorch without CUDA, much smaller)"
	@echo "make demo            segments the embedded example; CT=path/to/ct.nii.gz takes your own, OUT=folder"
	@echo "make test            style checks and the test suite with coverage of the engine, on WORKERS=$(WORKERS) processes"
	@echo "make test-long       every network and every loss learns two cases by heart, runs are killed ten times; minutes"
	@echo "make bench           measures time and memory"
	@echo "make screenshots     makes the pictures of the panel in Resources/Screenshots again"
	@echo "make train-default   trains the embedded models again from DATA=$(DATA); stopped, it goes on where it was"
	@echo "                     SET='training.steps=100' changes settings of every part, MODELS=folder keeps the embedded ones"
	@echo "make train-small     walks from data sets to a trained cascade with small networks, in minutes"
	@echo "make example         makes the embedded example again"
	@echo "make clean           removes $(VENV), caches and $(OUT)"
	@echo "PYTHON=path/to/python chooses the interpreter."

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@set -e; \
	found=""; \
	for candidate in "$(PYTHON)" python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    found="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "LiverCascade needs Python 3.11, 3.12 or 3.13, and none was found." >&2; \
	  echo "Install one of them, or name it: make $(MAKECMDGOALS) PYTHON=path/to/python" >&2; \
	  exit 1; \
	fi; \
	extra=""; \
	if [ -n "$(CPU)" ]; then extra="--extra-index-url $(CPU_WHEELS)"; fi; \
	echo "Installing into $(VENV) with $$("$$found" --version). This takes a few minutes, once."; \
	if ! "$$found" -m venv "$(VENV)"; then \
	  echo "The virtual environment could not be made. On Debian and Ubuntu: apt install python3-venv" >&2; \
	  exit 1; \
	fi; \
	"$(BIN)/python" -m pip install --quiet $$extra -c constraints.txt -e ".[scene,train,test]"; \
	touch "$(READY)"

# nnU-Net's own software, to compare with. It wants torchvision, beside which Lightning does not load with a PyTorch for
# the CPU: so it gets an environment of its own, which sees the packages of the first.
$(REFERENCE_READY): $(READY)
	@set -e; \
	echo "Installing nnU-Net into $(REFERENCE), to compare with. This takes a minute, once."; \
	"$(BIN)/python" -m venv "$(REFERENCE)"; \
	places='import site; print(site.getsitepackages()[0])'; \
	"$(BIN)/python" -c "$$places" > "$$("$(REFERENCE)/bin/python" -c "$$places")/livercascade-environment.pth"; \
	"$(REFERENCE)/bin/python" -m pip install --quiet -c constraints.txt nnunetv2; \
	touch "$(REFERENCE_READY)"

demo: setup
	@set -e; \
	ct="$(CT)"; \
	if [ -z "$$ct" ]; then ct="$(SAMPLE)"; fi; \
	"$(BIN)/livercascade" segment "$$ct" -o "$(OUT)"; \
	echo; \
	echo "The results lie in $(OUT):"; \
	for file in "$(OUT)"/*; do echo "  $$file"; done; \
	echo "Open overview.png first; scene.mrb opens in 3D Slicer. For research use only."

test: setup $(REFERENCE_READY)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/python" -m pytest -m "not long and not alone" -n $(WORKERS) --dist worksteal --cov --cov-report=
	"$(BIN)/python" -m pytest -m "alone and not long" --cov --cov-append --cov-report=term --cov-fail-under=90

test-long: setup $(REFERENCE_READY)
	"$(BIN)/python" -m pytest -m long

bench: setup $(REFERENCE_READY)
	"$(BIN)/python" Testing/bench.py
	"$(BIN)/python" Testing/nnunet_bench.py

screenshots: setup
	QT_QPA_PLATFORM=offscreen PYTHONPATH=LiverCascade:LiverCascadeTraining:Testing "$(BIN)/python" Testing/screenshots.py

train-default: setup
	@set -e; \
	train="$(BIN)/livercascade-train"; \
	"$$train" bodies --data "$(DATA)" --cache "$(RUNS)/cases"; \
	step() { \
	  role=$$1; name=$$2; shift 2; \
	  "$$train" $$role "$(CONFIGS)/default-$$name.yaml" --bodies "$(RUNS)/cases" --run "$(RUNS)/$$name" \
	    --accelerator cpu --no-export $(addprefix --set ,$(SET)) "$$@"; \
	}; \
	deliver() { \
	  "$$train" export "$(RUNS)/$$1/$$2" --to "$$3" --sources "$(CONFIGS)/default-sources.json"; \
	}; \
	first="$(RUNS)/first"; \
	further() { \
	  for model in context refine; do \
	    "$$train" export "$(RUNS)/$$model-$$1/refine" --to "$$first/$$model-$$1"; \
	    step refine $$model-$$2 --start-from "$$first/$$model-$$1" --locate "$(MODELS)/locate"; \
	  done; \
	}; \
	step locate locate; \
	"$$train" export "$(RUNS)/locate/locate" --to "$$first/locate"; \
	step refine refine; \
	step refine refine-tune --start-from "$(RUNS)/refine/refine"; \
	step refine refine-priors --start-from "$(RUNS)/refine-tune/refine" --locate "$$first/locate"; \
	step refine refine-patchy --start-from "$(RUNS)/refine-priors/refine" --locate "$$first/locate"; \
	"$$train" export "$(RUNS)/refine-patchy/refine" --to "$$first/refine"; \
	"$$train" bodies --data "$(DATA)" --cache "$(RUNS)/cases" --models "$$first"; \
	step refine context --start-from "$$first/refine" --locate "$$first/locate"; \
	step locate locate-reviewed --start-from "$$first/locate"; \
	deliver locate-reviewed locate "$(MODELS)/locate"; \
	step refine context-lesions --start-from "$(RUNS)/context/refine" --locate "$(MODELS)/locate"; \
	step refine refine-lesions --start-from "$$first/refine" --locate "$(MODELS)/locate"; \
	further lesions contrast; \
	further contrast shaped; \
	further shaped unseen; \
	further unseen small-lesions; \
	further small-lesions visible; \
	further visible neighbors; \
	for model in context refine; do \
	  deliver $$model-neighbors refine "$$first/$$model-neighbors"; \
	  "$$train" average "$$first/$$model-visible" "$$first/$$model-neighbors" --to "$(MODELS)/$$model"; \
	done; \
	"$$train" calibrate "$(MODELS)" --data "$(DATA)" -o "$(RUNS)/calibration" --apply; \
	"$$train" measure --models "$(MODELS)" --data "$(DATA)"

train-small: setup
	"$(BIN)/python" Testing/training_walkthrough.py --layout lits --data "$(DATA)" --to "$(RUNS)/small"

example: setup
	"$(BIN)/livercascade-train" example --to LiverCascade/Resources/SampleData

clean:
	rm -rf "$(VENV)" "$(REFERENCE)" "$(OUT)" .pytest_cache .ruff_cache .coverage *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
