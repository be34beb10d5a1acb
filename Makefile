# Two commands are enough: `make book` and `make test`. `make help` lists the rest.
# Another Python: make PYTHON=python3.12 book. Extra arguments for pip: PIP_ARGS, see CONTRIBUTING on the CPU build of torch.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV ?= .venv
PIP_ARGS ?=
WORKERS ?= 2
READY := $(VENV)/.ready
BIN := $(VENV)/bin
SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup book test lint format results bench bench-gpu notebooks clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY)  ## the environment: .venv from constraints.txt, this package in it, editable

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14) and "Python 3.11 to 3.13 is needed; name one: make PYTHON=python3.12 ...")'
	@start=$$(date +%s); \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[book,test]'; \
	echo $$(( $$(date +%s) - start )) > $@; \
	echo "environment ready in $$(cat $@) s: $(VENV)"

book: $(READY)  ## every chapter executed at profile "book", the book built: _build/html/index.html
	$(BIN)/python book/build.py --profile book

test: $(READY)  ## lint, unit and physics tests, notebooks, book and browser check at profile "smoke"
	@book/get_chromium.sh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --nbmake --nbmake-timeout=300 tests notebooks

lint: $(READY)  ## ruff only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What `results` goes through, in this order; the last two train for hours without a graphics card.
STUDIES ?= control ceiling detector_ceiling lattice identifiability shipped probes endpoints retrieval_curves denoising \
	auditing auditing_denoising blind_coverage advising advising_loop restyling restyling_ablation structures_match structures_twin \
	structures_ap ablation splits_compared
# Weights, trained alike from several seeds, and folders of supervised networks: make results WEIGHTS="a b c"
WEIGHTS ?= cimp-twin-s cimp-twin-s-seed1 cimp-twin-s-seed2
SUPERVISED ?=
SAMPLES ?= 40960
SEEDS ?= 0
WORK ?= runs/results
twin = $$($(BIN)/python -c 'import cimp_core; print(cimp_core.twin().path)')
weights = $(WEIGHTS:%=--weights %)
statistics = --statistics $(WORK)/statistics.npz
of_control = $(twin) $(statistics)
of_ceiling = $(twin)
of_detector_ceiling = $(twin)
of_lattice = $(twin)
of_identifiability =
of_shipped = $(twin) $(weights)
of_probes = $(twin) $(weights) $(SUPERVISED:%=--supervised %) $(statistics)
of_endpoints = $(twin) $(weights) $(statistics)
of_retrieval_curves = $(twin) $(weights)
of_denoising = $(twin) --work $(WORK)/denoising
of_auditing = --work $(WORK)/auditing
of_auditing_denoising = $(twin) --work $(WORK)/denoising
of_blind_coverage =
of_advising = $(twin)
of_advising_loop = $(twin) --work $(WORK)/advising
of_restyling = $(twin)
of_restyling_ablation = $(twin) --work $(WORK)/restyling
of_structures_match = $(WORK)/structures_match
of_structures_twin = $(twin)
of_structures_ap = --work $(WORK)/structures
of_ablation = $(twin) --work $(WORK)/ablation --samples $(SAMPLES) --seeds $(SEEDS) --curves
of_splits_compared = $(twin) --work $(WORK)/splits

results: $(READY) $(STUDIES:%=$(WORK)/%.done)  ## remake book/results.json, study by study; stopped, it goes on. WEIGHTS="a b c"

$(WORK)/%.done: | $(READY)
	@mkdir -p $(WORK)
	$(BIN)/python -m cimp_core.study.$* $(of_$*) --out book/results.json
	@touch $@

bench: $(READY)  ## speed and cost, a quarter of an hour: book/performance/*.json, kept until removed
	$(BIN)/python bench/run_all.py

bench-gpu: $(READY)  ## the same on a graphics card, where one has something to say
	$(BIN)/python bench/run_all.py --device cuda

notebooks: $(READY)  ## regenerate notebooks/*.ipynb from notebooks/*.py
	$(BIN)/python book/make_notebooks.py

clean:  ## what was built; the environment stays
	rm -rf _stage _build book/vendor
