# A newcomer needs two commands: `make study` and `make test`. Both make a private environment first.

PYTHON ?= python3
RUN := .venv/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help env study test soak coverage mutants adapters-matrix check bench book full lab clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
	@echo "The environment in .venv is made with PYTHON=$(PYTHON), and reused while it is current."

# The stamp is the last thing written, so an interrupted installation has none and is done again. It
# names the folder, since an environment doesn't survive being moved or copied.
env: ## make the environment in .venv, unless it is current
	@command -v "$(PYTHON)" > /dev/null || { \
	  echo "There is no $(PYTHON) here: install Python 3.11 or newer, or name one with PYTHON=..." >&2; \
	  exit 1; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Python 3.11 or \
	newer is needed, and %s is %d.%d: install a newer one, or name it with PYTHON=..." \
	% ((sys.executable,) + v))'
	@set -e; stamp=.venv/.stamp; \
	place="$$(pwd) $$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; \
	wanted="$$(cat requirements.lock pyproject.toml setup.py | cksum) $$place"; \
	works() { [ -x .venv/bin/python ] && .venv/bin/python -c pass 2> /dev/null; }; \
	found="$$(cat $$stamp 2> /dev/null || true)"; \
	if [ "$$found" = "$$wanted" ] && works; then exit 0; fi; \
	case "$$found" in \
	  *" $$place") works || found= ;; \
	  *) found= ;; \
	esac; \
	rm -f $$stamp; \
	if [ -z "$$found" ]; then \
	  echo "1/3 Making a private environment in .venv"; \
	  rm -rf .venv; \
	  "$(PYTHON)" -m venv .venv; \
	else \
	  echo "1/3 Bringing the environment in .venv up to date"; \
	fi; \
	export PIP_DISABLE_PIP_VERSION_CHECK=1; \
	echo "2/3 Installing the packages of requirements.lock (the first time: minutes, about 5 GB)"; \
	$(RUN) pip install -qq -r requirements.lock; \
	echo "3/3 Installing the study itself"; \
	$(RUN) pip install -qq --no-deps --no-build-isolation -e .; \
	$(RUN) pip check; \
	echo "$$wanted" > $$stamp

study: env ## run the study at the quick profile and build the book: minutes, no download
	@$(RUN) lib.study quick

# A process a core with a thread each: the tests' matrices are too small to share. Files stay in the
# order that tests/conftest.py gives them: the long ones first.
test: check ## check style and types, then run every test
	@OMP_NUM_THREADS=1 $(RUN) pytest -n auto --dist loadfile --no-loadscope-reorder

soak: env ## disturb everything at ROUNDS random moments, by default 200 of each kind of work
	@OMP_NUM_THREADS=1 SOAK_ROUNDS=$(or $(ROUNDS),200) SOAK_SEED=$(or $(SEED),1) \
	  $(RUN) pytest -n auto tests/test_soak.py tests/study/book/test_soak.py

# What these two measure with is no part of the environment: no test needs it.
GUARD := $(RUN) pip install -qq --no-build-isolation -e '.[guard]'

coverage: env ## show which lines and branches of lib no test reaches
	@$(GUARD)
	@OMP_NUM_THREADS=1 $(RUN) pytest -n auto --dist loadfile --no-loadscope-reorder --cov

mutants: env ## break the arithmetic everywhere and see a test fail: an hour or two, resumable
	@$(GUARD)
	@export OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=mutants; \
	  $(RUN) mutmut run && .venv/bin/python tests/mutants.py --again

adapters-matrix: env ## try each adapter with the oldest and the newest release of its library: minutes
	@.venv/bin/python tests/adapters_matrix.py

check: env ## check style and types
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy

bench: env ## measure speed and memory against other libraries, on an idle machine: most of an hour
	@$(RUN) benchmarks

book: env ## build the published book from its executed notebooks, running none
	@$(RUN) lib.study book

full: env ## run the study at the full profile on Flickr8k, and build the published book
	@$(RUN) lib.study full

lab: env ## open copies of the notebooks in JupyterLab; copies that are there stay as they are
	@mkdir -p _build/lab
	@cp -n notebooks/*.ipynb _build/lab/
	@echo "The copies are in _build/lab: remove one to get the notebook as it is now."
	@$(RUN) jupyterlab _build/lab

clean: ## remove built books and caches; the environment and finished runs stay
	rm -rf _build mutants .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
