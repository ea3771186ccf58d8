# Two commands: `make demo` and `make test`. Both set up what they need first; `make help` lists the rest.
.DEFAULT_GOAL := build
SHELL := /bin/sh

TOOLS := .cache/tools.mk
ifneq ($(MAKECMDGOALS),help)
include $(TOOLS)
endif
$(TOOLS): tools/setup.sh tools/requirements.txt
	@sh tools/setup.sh $@

include tools/models.mk

RELEASE := target/release
PROGRAM := $(RELEASE)/streaminfer
LIBRARY := $(RELEASE)/libstreaminfer.so

include tools/go.mk

.PHONY: help build models parity
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

build: ## the library and the command line, in target/release
	$(CARGO) build --release

models: $(ALL_MODELS) ## fetch and generate every model

parity: build $(ALL_MODELS) ## outputs against ONNX Runtime on all models
	$(PYTHON) tools/parity.py $(PROGRAM) $(MODELS)

.PHONY: bench-cpu
bench-cpu: build $(ALL_MODELS) ## the CPU device against ONNX Runtime, pair by pair; rewrites docs/cpu.md
	@mkdir -p docs benches/results
	$(PYTHON) tools/bench_cpu.py $(PROGRAM) $(MODELS) --json benches/results/cpu.json --markdown docs/cpu.md
