PYTHON ?= python3
TORCH ?= torch
PYTEST ?= .venv/bin/python -m pytest -n 2
BENCH = KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 .venv/bin/python benchmarks
# What takes no minutes and needs no other processor.
QUICK = -m "not slow and not arm"
# On TensorFlow alone: what computes nothing on the backend, or trains for minutes by what other
# files try on each.
ONCE = bench benchmarks clusters damage encodings files from_tfmot goals norms notebooks plots \
	records runtime schedules search selection strangers structural tables tfmot_clusters \
	tfmot_quantizing units whole_files
# What takes minutes on other backends: there with the slow ones.
LATE = cli domains killed networks readme segmentation transfer_learning
AGAIN = $(QUICK) $(patsubst %,--ignore=tests/test_%.py,$(ONCE) $(LATE))
# Exports are TensorFlow's in another process, on JAX as on PyTorch, where they are quick ones too.
LATE_ON_JAX = conversion_errors explain export export_figures file_order stock tfmot time_distributed
# Of what is slow, these too, which take long and hardly reach a backend.
SLOW_AGAIN = -m slow $(patsubst %,--ignore=tests/test_%.py,$(ONCE) fuzz graph reproduce shrink)
# Many tests compile the same step: each is compiled once in a run, which halves JAX' time.
JAX = .venv/jax_cache
ON_JAX = rm -rf $(JAX) && KERAS_BACKEND=jax JAX_COMPILATION_CACHE_DIR=$(CURDIR)/$(JAX) \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 $(PYTEST)

.PHONY: demo test test-torch test-slow test-arm bench peers lint clean

demo: .venv/demo
	KERAS_BACKEND=tensorflow .venv/bin/keras-l0 demo --overwrite

test: .venv/dev
	KERAS_BACKEND=tensorflow $(PYTEST) $(QUICK)
	$(ON_JAX) $(AGAIN) $(patsubst %,--ignore=tests/test_%.py,$(LATE_ON_JAX))

# Two workers whose PyTorch takes every core wait for each other's threads without end.
test-torch: .venv/torch
	OMP_NUM_THREADS=1 KERAS_BACKEND=torch $(PYTEST) $(AGAIN)

test-slow: .venv/dev
	KERAS_BACKEND=tensorflow $(PYTEST) -m slow
	$(ON_JAX) $(SLOW_AGAIN)
	$(ON_JAX) $(QUICK) $(patsubst %,tests/test_%.py,$(LATE) $(LATE_ON_JAX))

# The emulated system is made from packages the first time.
test-arm: .venv/dev
	PYTHON=.venv/bin/python tests/arm/setup.sh .arm
	KERAS_BACKEND=tensorflow $(PYTEST) -m arm tests/arm

# What ours is held against, apart: tfmot needs tf_keras, and sets a variable that Keras reads.
peers: .peers/made

.peers/made:
	$(PYTHON) -m venv .peers
	.peers/bin/pip install --quiet tensorflow tf_keras tensorflow-model-optimization
	touch $@

# About half an hour; tfmot's part is left out where there are no `peers`. The accuracies' whole
# matrix takes hours: the oldest cells are measured again.
bench: .venv/dev
	$(BENCH)/start_up.py --rounds 3
	$(BENCH)/step_cost.py --rounds 3
	$(BENCH)/pruning_cost.py
	$(BENCH)/export_time.py --rounds 1
	$(BENCH)/accuracy.py --minutes 3

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf .venv .arm .peers

# Each mark is newer than what it was installed from, so that an edit installs anew.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: setup.cfg | .venv/bin/python
	.venv/bin/pip install --quiet --editable ".[tensorflow,plot,demo]"
	touch $@

.venv/dev: setup.cfg | .venv/bin/python
	.venv/bin/pip install --quiet --editable ".[tensorflow,jax,plot,demo,search,tfmot,dev]"
	touch $@

.venv/torch: setup.cfg | .venv/dev
	.venv/bin/pip install --quiet "$(TORCH)"
	touch $@
