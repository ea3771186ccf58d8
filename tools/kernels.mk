# The GPU's kernels as portable PTX, kept in kernels/ptx. Only who changes kernels/ needs this: nvcc comes from PyPI, pinned to the
# version whose PTX the oldest supported driver takes.
NVCC_VENV := .cache/nvcc
NVCC_WHEELS := nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
	nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85

$(NVCC_VENV)/done:
	$(PYTHON) -m venv $(NVCC_VENV)
	$(NVCC_VENV)/bin/pip install --quiet --disable-pip-version-check $(NVCC_WHEELS)
	@touch $@

.PHONY: kernels
kernels: $(NVCC_VENV)/done ## compile kernels/*.cu to the PTX that the repository keeps
	$(PYTHON) tools/kernels.py "$$(ls $(CURDIR)/$(NVCC_VENV)/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)"
