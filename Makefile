# Two commands from a fresh clone: `make demo` and `make test`. Both make the environment when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help env demo test slow lint docs web clean

help:
	@echo "make demo   train a VAE on the embedded digits, draw from it, open the page on it"
	@echo "make test   run the linters, the type checker and the tests, but for the slow ones"
	@echo "make slow   run the slow tests"
	@echo "make docs   build README and docs as a site, into build/docs"
	@echo "make web    bundle the pages anew, after a change in src/fabulate/studio/web or share/web (needs node)"
	@echo "make env    only make the environment in $(VENV)"
	@echo "make clean  remove the environment and the demo's run"

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: env
	$(BIN)/fabulate demo

test: env lint
	$(BIN)/pytest -n 2

slow: env
	$(BIN)/pytest -n 2 -m slow

lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: env
	$(BIN)/sphinx-build -W --keep-going -q -c docs -d build/doctrees . build/docs
	@echo "build/docs/index.html"

web:
	sh src/fabulate/studio/web/build.sh
	sh src/fabulate/share/web/build.sh

clean:
	rm -rf $(VENV) runs/demo
