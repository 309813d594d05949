# make demo: everything from nothing to a trained and evaluated Oct-I3D.   make test: every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO_DATA := demo_data

.PHONY: demo test test-fast lint types imports docs format clean

$(INSTALLED): requirements.txt requirements-dev.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(INSTALLED)
	$(BIN)/python tools/make_demo_data.py $(DEMO_DATA)
	$(BIN)/python tools/train_net.py --cfg configs/demo/oct_i3d.yaml DATA.PATH_TO_DATA_DIR=$(DEMO_DATA)

# worksteal: neighbors share what their file has made.
test: lint types imports
	$(BIN)/pytest -n 2 --dist worksteal

test-fast: lint $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "the site: build/site/index.html"

format: $(INSTALLED)
	$(BIN)/python docs/make_api.py
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
