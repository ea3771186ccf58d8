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

include tools/install.mk
include tools/go.mk
include tools/kernels.mk
include tools/native.mk
include tools/gpu.mk

.PHONY: help build models parity footprint lint test test-rust test-cuda test-tools
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

build: ## the library and the command line, in target/release
	$(CARGO) build --release

models: $(ALL_MODELS) ## fetch and generate every model

test: lint test-tools test-rust test-cuda examples test-go test-go-memory test-go-linked test-go-module parity conformance ## everything that continuous integration runs
	@echo "make test: every check has passed"

lint: ## formatting and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --all-targets -- -D warnings

test-tools: ## the programs of tools/gpu, as far as they can be wrong without a GPU
	$(PYTHON) tools/gpu/test_tools.py

# The development profile checks arithmetic for overflow and plans after every pass.
test-rust: build $(MODELS)/mlp.onnx $(MODELS)/magika.onnx $(MODELS)/minilm.onnx ## unit and integration tests
	STREAMINFER_REQUIRE=1 $(CARGO) test --quiet

# The runtime's own tests once more, on the simulated GPU. Left out are those that take long on a
# simulated GPU or need a device that stops computing when asked.
CUDA_SKIP := a_timeout_drains a_cancel_from_another a_request_whose_deadline devices_that_are_not_there \
	dropping_a_context_in_flight
SIMULATED := LD_LIBRARY_PATH=$(CURDIR)/target/fakecuda
NODE_TESTS := target/node-tests
$(NODE_TESTS)/cases.tsv: tools/node_tests.py tools/conformance.py tools/requirements.txt docs/conformance.md
	$(PYTHON) tools/node_tests.py $(@D) docs/conformance.md

test-cuda: $(NODE_TESTS)/cases.tsv ## on the simulated driver: the runtime's tests, every step kind, ONNX's node tests
	$(CARGO) build --quiet --example fakecuda
	@mkdir -p target/fakecuda && ln -sf ../debug/examples/libfakecuda.so target/fakecuda/libcuda.so.1
	$(SIMULATED) $(CARGO) test --quiet --test runtime -- $(CUDA_SKIP:%=--skip %)
	$(SIMULATED) $(CARGO) test --quiet --test memory -- --skip a_draining_context
	$(SIMULATED) STREAMINFER_DEVICE=cuda:0 STREAMINFER_RUNS=500 $(CARGO) test --quiet --test allocation
	$(SIMULATED) STREAMINFER_DEVICE=cuda:0 $(CARGO) test --quiet --test gpu -- --driver
	$(SIMULATED) STREAMINFER_DEVICE=cuda:0 $(CARGO) test --quiet --test gpu -- --cover 2 --list > target/fakecuda/cover.jsonl
	$(SIMULATED) STREAMINFER_DEVICE=cuda:0 $(CARGO) test --quiet --test gpu
	$(SIMULATED) STREAMINFER_DEVICE=cuda:0 $(CARGO) test --quiet --test gpu -- --node-tests $(CURDIR)/$(NODE_TESTS)

footprint: build $(MODELS)/bert-base-torchscript.onnx ## time to the first answer, and memory, of BERT-base
	$(PYTHON) tools/footprint.py $(PROGRAM) $(MODELS)/bert-base-torchscript.onnx

parity: build $(ALL_MODELS) ## outputs against ONNX Runtime on all models
	$(PYTHON) tools/parity.py $(PROGRAM) $(MODELS)

.PHONY: bench-cpu
bench-cpu: build $(ALL_MODELS) ## the CPU device against ONNX Runtime, pair by pair; rewrites docs/cpu.md
	@mkdir -p docs benches/results
	$(PYTHON) tools/bench_cpu.py $(PROGRAM) $(MODELS) --json benches/results/cpu.json --markdown docs/cpu.md

.PHONY: conformance
conformance: build ## ONNX's own node tests; fails if not those of docs/conformance.md fail
	$(PYTHON) tools/conformance.py $(PROGRAM) docs/conformance.md
