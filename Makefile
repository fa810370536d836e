# Needs make and Python >= 3.11 with venv and pip. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INPUTS := pyproject.toml constraints.txt

.PHONY: help demo test lint clean
.DELETE_ON_ERROR:

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## Fine-tune the starter model on the example data, then evaluate it
	$(BIN)/sft train examples/support_tickets/demo.yaml
	$(BIN)/sft eval runs/demo --data examples/support_tickets/held_out.jsonl
	$(BIN)/sft guards runs/demo

test: lint ## The one check: style, types and tests
	$(BIN)/python -m pytest -n auto --dist loadscope

lint: $(VENV)/.installed-test ## Style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## Remove the environment, builds and caches; runs/ stays
	rm -rf $(VENV) build dist .ruff_cache .mypy_cache .pytest_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and shows its progress: with its CUDA libraries it is most of the download.
define install
@echo "Installing torch"
$(PIP) install torch -c constraints.txt
@echo "Installing sft and the other packages"
$(PIP) install --quiet -e ".[$(EXTRAS)]" -c constraints.txt
endef

# A stamp is newer than its inputs, so that a second call installs nothing.
$(VENV)/.installed-demo: EXTRAS := starter
$(VENV)/.installed-demo: $(VENV)/.created $(INPUTS)
	$(install)
	@touch $@

$(VENV)/.installed-test: EXTRAS := starter,dev,goldens,tensorboard,wandb,mlflow,trackio
$(VENV)/.installed-test: $(VENV)/.created $(INPUTS)
	$(install)
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "sft needs Python >= 3.11. Name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
