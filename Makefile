VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
TENSORRT_VENV ?= .venv-tensorrt
CLUSTER_VENV ?= .venv-ray
AUDIT_VENV ?= .venv-audit
HLS = server/gateway/web/vendor/hls.mjs

DEPLOY_VENV ?= .venv-deploy
# What builds images: docker or podman.
DOCKER ?= docker
TARGET ?= cpu
EXTRAS ?=
IMAGE ?= livesr:local$(if $(filter-out cpu,$(TARGET)),-$(TARGET))$(if $(EXTRAS),-$(EXTRAS))
SBOM ?= spdx-json

.PHONY: audit cluster-check docs generated licenses release-check run test fuzz lint types web tensorrt-check gpu gpu-check image sbom chart deploy-check

# Serving needs no torch; tests do (the reference backend is the oracle).
$(BIN)/.serve: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(BIN)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[train,onnx,otel,dev]'
	# Without torchvision, which it asks for: two of its architectures use that, and it has to fit PyTorch's wheel.
	$(BIN)/pip install -q -c constraints.txt --no-deps spandrel einops
	touch $@ $(BIN)/.serve

# TensorRT's versions follow the driver of the machine: the constraints do not cover them. Without it PyTorch's
# engine, lanes, NVDEC and NVENC can be checked all the same.
$(BIN)/.gpu: $(BIN)/.dev
	$(BIN)/pip install -q -e '.[gpu]' || echo "TensorRT can't be installed here: what needs it is left out" >&2
	touch $@

# hls.js plays HLS closer to the present than browsers do: where npm is absent, the service does without.
$(HLS): package-lock.json
	npm ci
	mkdir -p $(@D)
	cp node_modules/hls.js/dist/hls.light.min.mjs $@

web: $(HLS)

run: $(BIN)/.serve $(if $(shell command -v npm),web)
	$(BIN)/livesr serve --config deploy/demo.toml

# In two processes: most tests wait for programs to start. Those of a file share what they set up. PyTorch has one thread
# in each: its threads spin until the last has had its turn, and on two busy cores two take several times as long as one.
test: $(BIN)/.dev $(if $(shell command -v npm),web)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# Mutated input for all that reads the bytes of others; the tests have a share of it.
fuzz: $(BIN)/.dev
	$(BIN)/python -m tests.fuzz 100000

# Builds sdist and wheel, installs the wheel in a clean environment and has it serve the demo.
release-check: $(if $(shell command -v npm),web)
	tests/release/check $(PYTHON)

# Known vulnerabilities of what constraints.txt pins. Ends with 3 where it could not ask about all of it.
audit: $(BIN)/.audit
	-$(AUDIT_VENV)/bin/pip-audit --format json --requirement constraints.txt --no-deps --disable-pip \
		2>/dev/null > $(AUDIT_VENV)/report.json
	$(BIN)/python -m tests.release.audit < $(AUDIT_VENV)/report.json

$(BIN)/.audit: $(BIN)/.dev
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/pip install -q pip-audit
	touch $@

# Pages and files that are written from what they describe; tests compare them.
generated: $(BIN)/.dev licenses
	$(BIN)/livesr check-config --schema > deploy/livesr.schema.json
	$(BIN)/python -m tests.docs.settings_page > docs/settings.md
	$(BIN)/python -m tests.docs.api_page > docs/api.md
	$(BIN)/python -m server.gateway.figures.table > docs/metrics.md

$(BIN)/.docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q 'mkdocs-material>=9.8,<10'
	touch $@

# The site, in build/docs; whatever is amiss fails.
docs: $(BIN)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

licenses: $(BIN)/.dev
	$(BIN)/python -m tests.release.licenses > docs/licenses.md

lint: $(BIN)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(BIN)/.dev
	$(BIN)/mypy

# torch-tensorrt's libraries need a TensorRT that only a GPU machine has; without them its Python code runs.
$(TENSORRT_VENV)/.ready: tests/tensorrt/requirements.txt tests/tensorrt/front_end.txt constraints.txt
	$(PYTHON) -m venv $(TENSORRT_VENV)
	$(TENSORRT_VENV)/bin/pip install -q -c constraints.txt -r tests/tensorrt/requirements.txt
	$(TENSORRT_VENV)/bin/pip install -q --no-deps -r tests/tensorrt/front_end.txt
	cd $(TENSORRT_VENV)/lib/python3*/site-packages/torch_tensorrt && rm -rf lib bin _C*.so
	touch $@

# Every frame graph through torch-tensorrt and NVIDIA's offline builder; needs no GPU.
tensorrt-check: $(TENSORRT_VENV)/.ready
	TENSORRT_CHECK=1 $(TENSORRT_VENV)/bin/python -m pytest -s tests/tensorrt

# Ray is large: an environment of its own, which sees all of the other.
$(CLUSTER_VENV)/.ready: $(BIN)/.dev
	$(PYTHON) -m venv $(CLUSTER_VENV)
	realpath $(VENV)/lib/python3*/site-packages > $$(echo $(CLUSTER_VENV)/lib/python3*/site-packages)/livesr.pth
	$(CLUSTER_VENV)/bin/pip install -q -c constraints.txt 'ray>=2.60,<3'
	touch $@

# Streams on a Ray cluster of several nodes on this machine, some of which are lost; it takes some minutes.
cluster-check: $(CLUSTER_VENV)/.ready
	CLUSTER_CHECK=1 $(CLUSTER_VENV)/bin/python -m pytest -s -W default tests/cluster

# The image for machines without a GPU; TARGET=gpu for those with one, EXTRAS=cluster with Ray.
image:
	$(DOCKER) build --target $(TARGET) -t $(IMAGE) --build-arg EXTRAS=$(EXTRAS) \
		--build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
		--build-arg REVISION="$$(git rev-parse HEAD)" \
		--build-arg CREATED="$$(git log -1 --format=%cI)" .

$(DEPLOY_VENV)/.ready: tests/deploy/check/requirements.txt
	$(PYTHON) -m venv $(DEPLOY_VENV)
	$(DEPLOY_VENV)/bin/pip install -q -r $<
	touch $@

# What is in the image, by syft: SBOM=spdx-json, cyclonedx-json or syft-json.
sbom: $(DEPLOY_VENV)/.ready
	$(DEPLOY_VENV)/bin/syft scan $(notdir $(DOCKER)):$(IMAGE) -o $(SBOM)

# Every file of deploy/ by the program that reads it, as the table in docs/deploy.md has it, and with IMAGE_CHECK=1
# the image, built and run.
deploy-check: $(BIN)/.dev $(DEPLOY_VENV)/.ready
	DEPLOY_CHECK=1 DEPLOY_VENV=$(abspath $(DEPLOY_VENV)) $(BIN)/pytest -s --durations=5 tests/deploy \
		$$(grep -o 'tests/peers/[a-z_]*\.py::[a-z_0-9]*' docs/deploy.md)

# What follows from the Helm chart: the table of its README, and deploy/kustomize.
chart: $(DEPLOY_VENV)/.ready
	$(DEPLOY_VENV)/bin/python deploy/helm/generate.py

gpu:
	@nvidia-smi -L >/dev/null 2>&1 || { echo "no NVIDIA GPU here: nvidia-smi shows none" >&2; exit 1; }

# On a machine with a GPU: 1080p from NVDEC to NVENC, more streams, then the other tests that need one, and at its
# end what this GPU could not do; and a page of figures. Warnings of libraries that only such a machine has are
# shown, and no failure.
gpu-check: gpu $(BIN)/.gpu
	FAIL_WITHOUT_CUDA=1 $(BIN)/pytest -m gpu -W default; \
	tests=$$?; $(BIN)/livesr bench --gpu-report gpu-report.md && exit $$tests
