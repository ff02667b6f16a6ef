# Commands that work in a fresh clone and only need Python 3.11 to 3.13:
#   make demo   trains, evaluates and exports a detector; open demo/index.html to see the results
#   make test   runs the tests
#   make notebooks   runs the notebooks of examples/notebooks: build/notebooks/*.ipynb, with pictures
#   make findings   runs findings/*.sh, which show surprising behaviour of other tools; installs them from the network
#   make docs   builds the documentation site, build/docs/index.html
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
# A change in these files (compiled ops, dependencies) triggers a new installation. The package itself is editable.
INSTALLED_FROM := pyproject.toml setup.py $(shell find custom_ops -type f)

.PHONY: install demo test test-all lint docs notebooks findings clean

install: .venv/installed

# TensorFlow is installed first, so that the ops are compiled against the version that will run them.
.venv/installed: $(INSTALLED_FROM)
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11, 3.12 or 3.13 found; install one, or pass PYTHON=PATH" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip "setuptools>=77"
	$(BIN)/pip install --quiet "tensorflow==2.21.*"
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --no-build-isolation --editable '.[test]'
	@$(BIN)/python -c "from tf_fast_rcnn.ops.native import why_unavailable; print('RoI pooling:', why_unavailable() or 'native')" 2>/dev/null
	@touch $@

demo: install
	rm -rf demo
	$(BIN)/tf-fast-rcnn demo --out demo

# Three processes on two cores: tests also wait for servers, browsers and other processes.
test: install lint
	$(BIN)/python -m pytest -m "not slow" -n 3 -q

test-all: install lint
	$(BIN)/python -m pytest -n 3 -q

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find custom_ops -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

# Strict: warnings, such as a dead link or a public name without a page, are errors.
docs: install
	$(BIN)/python -m sphinx -W -n --keep-going -E -q -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

# Files for Jupyter, with the outputs of all cells.
notebooks: install
	$(BIN)/python tools/notebooks.py --out build/notebooks

# Runs all of them, and fails if any of them failed.
findings:
	@failed=""; for script in findings/*.sh; do \
		echo "$$script"; bash $$script || failed="$$failed $$script"; \
	done; [ -z "$$failed" ] || { echo "changed:$$failed" >&2; exit 1; }

clean:
	rm -rf .venv build demo *.egg-info tf_fast_rcnn/*.so
