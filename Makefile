VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
HLS = server/web/vendor/hls.mjs

.PHONY: run test lint types web

# Serving needs no torch; tests do (the reference backend is the oracle).
$(BIN)/.serve: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(BIN)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[train,dev]'
	touch $@ $(BIN)/.serve

# hls.js is only for browsers that play no HLS themselves: where npm is absent, the service does without.
$(HLS): package-lock.json
	npm ci
	mkdir -p $(@D)
	cp node_modules/hls.js/dist/hls.light.min.mjs $@

web: $(HLS)

run: $(BIN)/.serve $(if $(shell command -v npm),web)
	$(BIN)/livesr serve --config deploy/demo.toml

test: $(BIN)/.dev $(if $(shell command -v npm),web)
	$(BIN)/pytest

lint: $(BIN)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.dev
	$(BIN)/mypy
