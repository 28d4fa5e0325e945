# Two commands: `make demo` (a report from nothing) and `make test`.
PYTHON ?= python3
# Processor cores of the demo.
CORES ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo
SNAKEMAKE := $(BIN)/snakemake --directory $(DEMO) --configfile $(DEMO)/config/config.yaml --cores $(CORES)

.PHONY: install demo test lint clean

install: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: install
	$(BIN)/python workflow/scripts/prepare_demo.py --output $(DEMO)
	$(SNAKEMAKE) train_segmenter
	$(SNAKEMAKE) train_classifier
	$(SNAKEMAKE)
	@$(BIN)/python -c "print(open('$(DEMO)/results/evaluation.csv').read())"
	@echo "The report: $(abspath $(DEMO))/results/report.html"

# For two cores: the tests of the cluster wait more than they compute.
test: install
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow Snakefile

clean:
	rm -rf $(DEMO) $(VENV)
