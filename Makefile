# Everything a newcomer needs. Each target makes the virtual environment first if it is not there.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin

.PHONY: install demo test check reproduce bench clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[all,dev,reference]'
	touch $@

demo: install  ## ask about a photo, a page and a video; replay; then the trained policy, which learns while it serves
	$(BIN)/python examples/demo.py
	$(BIN)/python examples/demo_nano.py

test: install  ## the whole test suite, JOBS processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

check: install  ## lint, format
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples

reproduce: install  ## everything from nothing, stage by stage; QUICK=1 in miniature
	$(BIN)/pixelis reproduce $(if $(QUICK),--quick)

bench: install  ## quality and latency of the tools on ../shared/media or PIXELIS_MEDIA
	$(BIN)/python benchmarks/tools.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
