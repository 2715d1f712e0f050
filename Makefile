PYTHON ?= python3
TORCH ?= torch
PYTEST ?= .venv/bin/python -m pytest -n 2

.PHONY: demo test test-torch test-slow lint clean

demo: .venv/demo
	KERAS_BACKEND=tensorflow .venv/bin/keras-l0 demo

test: .venv/dev
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not slow"
	KERAS_BACKEND=jax $(PYTEST) -m "not slow"

# Two workers whose PyTorch takes every core wait for each other's threads without end.
test-torch: .venv/torch
	OMP_NUM_THREADS=1 KERAS_BACKEND=torch $(PYTEST) -m "not slow"

test-slow: .venv/dev
	KERAS_BACKEND=tensorflow $(PYTEST) -m slow
	KERAS_BACKEND=jax $(PYTEST) -m slow

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf .venv

# Each mark is newer than what it was installed from, so that an edit installs anew.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: setup.cfg | .venv/bin/python
	.venv/bin/pip install --quiet --editable ".[tensorflow,plot,demo]"
	touch $@

.venv/dev: setup.cfg | .venv/bin/python
	.venv/bin/pip install --quiet --editable ".[tensorflow,jax,plot,demo,dev]"
	touch $@

.venv/torch: setup.cfg | .venv/dev
	.venv/bin/pip install --quiet "$(TORCH)"
	touch $@
