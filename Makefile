# make demo   hear the shipped recordings; installs only what the device needs
# make test   install everything and run the tests
# make check  lint and types
# Another Python: make PYTHON=python3.12 demo, where there is no .venv-edge yet (make test: .venv)

PYTHON ?= python3

demo: .venv-edge/.done
	.venv-edge/bin/python -m edge --demo --realtime

test: .venv/.done
	.venv/bin/python -m pytest

check: .venv/.done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

.venv-edge/.done: edge/requirements.txt
.venv/.done: requirements.txt $(wildcard edge/requirements*.txt)

# A virtual environment with the first prerequisite installed; .done is written last.
%/.done:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "expected Python 3.10 or newer, found $$($(PYTHON) --version 2>&1); give another: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "this Python has no venv module; on Debian, Ubuntu and Raspberry Pi OS: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $*
	$*/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: demo test check
