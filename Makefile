# Every target sets itself up on a machine that has Python 3.11, make and a shell.
# Environments are made anew only when pyproject.toml or constraints.txt changed; `make clean` removes them.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := /bin/sh
.SHELLFLAGS := -euc

VENV := .venv
BIN := $(VENV)/bin
BASE_VENV := .venv-3.10
ROS_VENV := .venv-ros
OLD_VENV := .venv-old
DEPLOY_VENV := .venv-deploy
BROWSER_VENV := .venv-browser
TOOLS_VENV := .venv-tools
# The oldest flwr that the extra `agent` allows; VENV has the newest, by constraints.txt.
OLDEST_FLWR := $(shell sed -n 's/^agent = .*flwr>=\([0-9.]*\),.*/\1/p' pyproject.toml)
FLWR_VENV := .venv-flwr-$(OLDEST_FLWR)
TORCH_VENV := .venv-torch
PIPELINES_VENV := .venv-pipelines
UV := $(TOOLS_VENV)/bin/uv
SYSTEMD := $(TOOLS_VENV)/systemd
SERVERS := $(TOOLS_VENV)/servers
EXTRAS := agent keras server serve video bucket mcp tensorboard onnx onnxruntime kubernetes privacy simulation ros demo ros-dev text torch torch-server torch-dev pipelines kubeflow pipelines-dev web test dev

# One thread per process: a demo runs many processes on few cores. No program here phones home.
export OMP_NUM_THREADS := 1
export TF_CPP_MIN_LOG_LEVEL := 3
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export UV_PYTHON_DOWNLOADS := never
# Tests start hundreds of interpreters, and pytest rewrites every file of tests: compile each file once.
export PYTHONDONTWRITEBYTECODE :=

# Most of a test's time is waiting for processes that it started: with as many workers as cores, a
# quarter of two cores lies idle. A file stays in one worker; which come first says tests/conftest.py.
# A worker that ends is replaced once: what ended it runs again first.
PROCESSES := 4
PARALLEL = --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 1

# $(call find_python,X.Y): prints an interpreter of that version, or nothing. A name on PATH may be
# a shim that does not run, so every candidate is tried.
find_python = for candidate in python$(1) python3 python "$$HOME"/.pyenv/versions/$(1).*/bin/python \
	"$$(test ! -x $(UV) || $(UV) python find $(1) 2>/dev/null)"; do \
	if "$$candidate" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(1)")' 2>/dev/null; \
	then echo "$$candidate"; break; fi; done

# $(call install,VENV,EXTRAS[,FILE,MORE]): the project, editable, at the versions of constraints.txt or
# FILE. Compiled at once: many processes that each compile TensorFlow while they start take minutes.
comma := ,
install = if test -x $(UV); \
	then $(UV) pip install --quiet --compile-bytecode --python $(1)/bin/python --editable ".[$(2)]" --constraint $(or $(3),constraints.txt) $(4); \
	else $(1)/bin/python -m pip install --quiet --editable ".[$(2)]" --constraint $(or $(3),constraints.txt) $(4); fi

.PHONY: help setup dist demo demo-detection test check static test-base test-ros test-flwr test-torch test-pipelines fuzz soak bench constraints clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; \
	do printf '  %-14s %s\n' "$$target" "$$text"; done

setup: $(VENV)/.installed ## make .venv with edge-agent, cloud-server and all tools
	@echo "ready: $(BIN)/edge-agent, $(BIN)/cloud-server"

dist: | $(UV) ## build the wheel and Debian packages into dist (ARCH=arm64: for Jetson and Raspberry Pi)
	@$(TOOLS_VENV)/bin/python deploy/packages/build.py $(if $(ARCH),--arch $(ARCH)) $(ARGS)

demo: $(VENV)/.installed ## a server and several robots on this machine, camera frame to prediction (KEEP=1: leave it running)
	@$(BIN)/python deploy/demo/demo.py $(if $(KEEP),--keep)

demo-detection: $(VENV)/.installed ## the same for boxes: seven robots learn where toys are in rendered rooms
	@$(BIN)/python deploy/demo/detection.py $(if $(KEEP),--keep)

# The other environments' tests fill the moments in which the main ones wait; their output comes at the end.
BESIDE := test-base test-ros test-flwr test-torch test-pipelines
test: static $(foreach venv,$(OLD_VENV) $(SYSTEMD) $(SERVERS) $(DEPLOY_VENV) $(BROWSER_VENV) $(BASE_VENV) $(ROS_VENV) $(FLWR_VENV) $(TORCH_VENV) $(PIPELINES_VENV),$(venv)/.installed) ## everything: check, slow tests, resolution for robots, Python 3.10, the oldest flwr, PyTorch, Flyte
	@rm -rf build/summaries; mkdir -p build/summaries; export TEST_SUMMARIES="$$PWD/build/summaries"; \
	nice -n 5 $(MAKE) --no-print-directory PROCESSES=2 --keep-going $(BESIDE) > build/beside.log 2>&1 & beside=$$!; \
	trap "kill $$beside 2> /dev/null || true; cat build/summaries/*; exit 130" INT TERM; code=0; without=; \
	test -x $(UV) || { without=--ignore=tests/packaging/test_resolution.py; \
	echo "left out: the resolution checks of tests/packaging need uv, which could not be installed"; }; \
	$(BIN)/python -m pytest $(PARALLEL) $$without || code=$$?; \
	wait $$beside || code=$$?; cat build/beside.log build/summaries/*; exit $$code

check: static ## format, lint, types, import contracts, fast tests
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

static: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy ros2_ws/*.py ros2_ws/src/edge_bringup/launch/*.py
	$(BIN)/lint-imports --no-logo --no-cache

# Only files that use the marker are collected: the others import what the base does not have. The long
# suites and most examples of the properties run once, on 3.11.
test-base: $(BASE_VENV)/.installed
	@if test -e $<; then \
	$(BASE_VENV)/bin/python -c 'import numpy, sys; print("base tests: Python %d.%d," % sys.version_info[:2], "NumPy", numpy.__version__)'; \
	HYPOTHESIS_PROFILE=sample $(BASE_VENV)/bin/python -m pytest $(PARALLEL) -m "base and not slow" $$(grep -rlE 'mark\.base\b' tests --include='test_*.py'); \
	else echo "left out: the base tests on Python 3.10, no such interpreter was found on this machine"; fi

# Only files that use the marker are collected, as above. The messages of vision_msgs, which robots have
# as a package of their distribution, are built beside the workspace, so that both outputs run. The
# script of colcon reads variables that nobody has set.
ROS_TESTS = $$(grep -rlE 'mark\.ros\b' tests --include='test_*.py')
test-ros: $(ROS_VENV)/.installed
	@if test -e $<; then \
	$(ROS_VENV)/bin/python ros2_ws/build_from_wheels.py tests/ros2_ws/vision_msgs; \
	set +u; . build/ros2_ws/install/local_setup.sh; set -u; \
	ROS_PYTHON_CHECK_FIELDS=1 $(ROS_VENV)/bin/python -m pytest --numprocesses $(PROCESSES) -m ros $(or $(ARGS),$(ROS_TESTS)); \
	else echo "left out: the ROS tests, ROS 2 has wheels only for Python 3.11 on x86-64"; fi

# Only files that use the marker are collected, as above.
test-flwr: $(FLWR_VENV)/.installed
	@$(FLWR_VENV)/bin/python -c 'from importlib.metadata import version; print("contract tests with flwr", version("flwr"), "and tritonclient", version("tritonclient"))'
	@$(FLWR_VENV)/bin/python -m pytest $(PARALLEL) -m "(flower or client) and not slow" $$(grep -rlE 'mark\.(flower|client)\b' tests --include='test_*.py')

# Only files that use the marker are collected, as above.
test-torch: $(TORCH_VENV)/.installed
	@$(TORCH_VENV)/bin/python -c 'from importlib.metadata import version; print("torch tests with torch", version("torch"), "and transformers", version("transformers"))'
	@$(TORCH_VENV)/bin/python -m pytest $(PARALLEL) -m torch $(or $(ARGS),$$(grep -rlE 'mark\.torch\b' tests --include='test_*.py'))

# Only files that use the marker are collected, as above.
test-pipelines: $(PIPELINES_VENV)/.installed
	@$(PIPELINES_VENV)/bin/python -c 'from importlib.metadata import version; print("tests of pipelines with Flyte", version("flyte"))'
	@$(PIPELINES_VENV)/bin/python -m pytest $(PARALLEL) -m pipelines $(or $(ARGS),$$(grep -rlE 'mark\.pipelines\b' tests --include='test_*.py'))

# The readers' fuzzers (FUZZ_INPUTS each), then the property tests with a hundred times the examples
# (tests/conftest.py) and everything else as usual. Logs of past runs: docs/soak.md.
FUZZ_INPUTS := 1000000
fuzz: $(VENV)/.installed ## a million damaged inputs for each reader of messages and bags
	@for reader in messages mcap db3 ros1; do \
	$(BIN)/python tests/fuzz/fuzz_$$reader.py --inputs $(FUZZ_INPUTS) --seed $$(date +%s); done

soak: $(VENV)/.installed fuzz ## the long suites whole: hours rather than minutes (ARGS="..." is passed on)
	@HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest --timeout 7200 -o faulthandler_timeout=7500 $(ARGS)
	@HYPOTHESIS_PROFILE=soak $(MAKE) --no-print-directory test-ros ARGS=

bench: $(VENV)/.installed $(ROS_VENV)/.installed ## measure this project beside its peers and print the ratios
	@for name in startup agent_cost round_time extract server_memory recovery simulate aging deploy heads active_labels bytes non_iid sites detection detection_cost text departments compression serving ros_latency many_robots console; do \
	echo "== $$name"; $(BIN)/python -m benchmarks.$$name $(ARGS); done

constraints: | $(UV) ## resolve pyproject.toml again into constraints.txt (needs uv)
	@$(UV) pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.10 \
	--no-annotate --custom-compile-command "make constraints" \
	$(foreach extra,$(EXTRAS),--extra $(extra)) --output-file constraints.txt

# An agent of the last version without a protocol number, from this repository's own history, for
# tests/end_to_end/test_old_agent.py. A clone without that commit makes nothing, and the test says so.
OLD_COMMIT := 87262d47c3b432608a8b89c7c5d88c29ab07b004
OLD_FILES := fleet_model edge_agent cloud_server pyproject.toml constraints.txt README.md LICENSE
$(OLD_VENV)/.installed: | $(UV)
	@if git cat-file -e $(OLD_COMMIT) 2>/dev/null; then \
	python="$$($(call find_python,3.11))"; \
	test -x $(OLD_VENV)/bin/python || "$$python" -m venv $(OLD_VENV); \
	rm -rf $(OLD_VENV)/tree; mkdir $(OLD_VENV)/tree; \
	git archive $(OLD_COMMIT) $(OLD_FILES) | tar -x -C $(OLD_VENV)/tree; \
	if test -x $(UV); \
	then $(UV) pip install --quiet --python $(OLD_VENV)/bin/python "$(OLD_VENV)/tree[agent]" --constraint $(OLD_VENV)/tree/constraints.txt; \
	else $(OLD_VENV)/bin/python -m pip install --quiet "$(OLD_VENV)/tree[agent]" --constraint $(OLD_VENV)/tree/constraints.txt; fi; \
	touch $@; \
	else echo "left out: the test with an old agent, this clone's history lacks commit $(OLD_COMMIT)"; fi

# What checks deploy/systemd. A machine without it, as a container, gets it from its distribution's
# packages, unpacked here without root. Links among units are of a system that runs.
APT_LIBRARIES = apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
	--no-replaces --no-enhances systemd | grep '^lib' | grep -v '^libc6$$' | sort -u
$(SYSTEMD)/.installed: | $(UV)
	@mkdir -p $(SYSTEMD); \
	if ! command -v systemd-analyze >/dev/null; then \
	cd $(SYSTEMD); \
	if apt-get download --quiet=2 systemd $$($(APT_LIBRARIES)) && for package in *.deb; do dpkg -x $$package root; done; \
	then rm -f *.deb; find root/lib/systemd/system root/usr/lib/systemd/system -type l -delete 2>/dev/null || true; \
	else echo "make: systemd-analyze was not found and could not be fetched; install the package systemd" >&2; exit 1; fi; fi
	@touch $@

# A web server for the files of models, and a clock that is wrong: unpacked from the distribution's packages,
# without root. Where they cannot be had, the tests that need them are skipped and say so.
$(SERVERS)/.installed: | $(UV)
	@mkdir -p $(SERVERS); cd $(SERVERS); \
	if apt-get download --quiet=2 nginx libfaketime || \
	{ apt-get update --quiet=2 && apt-get download --quiet=2 nginx libfaketime; }; \
	then for package in *.deb; do dpkg -x $$package root; done; rm -f *.deb; \
	else echo "left out: tests with nginx or libfaketime, which could not be fetched"; fi
	@touch $@

# What runs and judges deploy/ansible, deploy/docker and deploy/kubernetes; all of it from one index.
$(DEPLOY_VENV)/.installed: deploy/tools.txt | $(UV)
	@python="$$($(call find_python,3.11))"; \
	test -x $(DEPLOY_VENV)/bin/python || "$$python" -m venv $(DEPLOY_VENV); \
	if test -x $(UV); \
	then $(UV) pip install --quiet --compile-bytecode --python $(DEPLOY_VENV)/bin/python --requirement deploy/tools.txt; \
	else $(DEPLOY_VENV)/bin/python -m pip install --quiet --requirement deploy/tools.txt; fi
	@touch $@

# A browser without windows, unpacked from the distribution's packages without root, and what drives it. Not
# unpacked: what every machine has, and what draws in 3D. Where it cannot be had, the tests that need it are
# skipped and say so.
BROWSER_PACKAGES = apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
	--no-replaces --no-enhances chromium-headless-shell fonts-dejavu-core | grep -E '^(lib|zlib|chromium|font)' | \
	grep -vE '^(libc6|libcrypt1|libgcc-s1)$$|^lib(llvm|z3|gl1|icu)|^fonts-[^d]' | sort -u
$(BROWSER_VENV)/.installed: tests/edge_agent/labeling/browser.txt | $(UV)
	@python="$$($(call find_python,3.11))"; \
	test -x $(BROWSER_VENV)/bin/python || "$$python" -m venv $(BROWSER_VENV); \
	if test -x $(UV); \
	then $(UV) pip install --quiet --python $(BROWSER_VENV)/bin/python --requirement $<; \
	else $(BROWSER_VENV)/bin/python -m pip install --quiet --requirement $<; fi; \
	mkdir -p $(BROWSER_VENV)/packages; cd $(BROWSER_VENV)/packages; \
	if apt-get download --quiet=2 $$($(BROWSER_PACKAGES)) || \
	{ apt-get update --quiet=2 && apt-get download --quiet=2 $$($(BROWSER_PACKAGES)); }; \
	then for package in *.deb; do dpkg -x $$package ../chromium; done; \
	else echo "left out: the tests with a browser, which could not be fetched"; fi; cd ..; rm -rf packages
	@touch $@

clean: ## remove environments, builds and caches; data stays
	@rm -rf $(VENV) $(BASE_VENV) $(ROS_VENV) $(FLWR_VENV) $(TORCH_VENV) $(PIPELINES_VENV) $(OLD_VENV) $(DEPLOY_VENV) $(BROWSER_VENV) $(TOOLS_VENV) build dist *.egg-info \
	.mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -type d -name __pycache__ -prune -exec rm -rf {} +

# A failed installation of uv is no error: pip takes over, more slowly.
$(UV):
	@python="$$($(call find_python,3.11))"; \
	test -n "$$python" || { echo "make: Python 3.11 was not found; install it, or put it on PATH as python3.11" >&2; exit 1; }; \
	test -x $(TOOLS_VENV)/bin/python || "$$python" -m venv $(TOOLS_VENV) || \
	{ rm -rf $(TOOLS_VENV); echo "make: $$python cannot make environments; on Debian install python3.11-venv" >&2; exit 1; }; \
	$(TOOLS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.12,<0.14" || \
	echo "make: uv could not be installed, pip is used in its place (slower)"

$(VENV)/.installed: pyproject.toml constraints.txt | $(UV)
	@python="$$($(call find_python,3.11))"; \
	test -x $(BIN)/python || { echo "making $(VENV), about 2 GB, once"; "$$python" -m venv $(VENV); }; \
	$(call install,$(VENV),demo$(comma)dev)
	@touch $@

# Without an interpreter nothing is made, and test-base says so.
$(BASE_VENV)/.installed: pyproject.toml constraints.txt | $(UV)
	@python="$$($(call find_python,3.10))"; \
	if test -n "$$python"; then \
	test -x $(BASE_VENV)/bin/python || "$$python" -m venv $(BASE_VENV); \
	$(call install,$(BASE_VENV),test); \
	touch $@; fi

# Without wheels nothing is made, and test-ros says so.
$(ROS_VENV)/.installed: pyproject.toml constraints.txt | $(UV)
	@python="$$($(call find_python,3.11))"; \
	if test -n "$$python" && test "$$(uname -m)" = x86_64; then \
	test -x $(ROS_VENV)/bin/python || "$$python" -m venv $(ROS_VENV); \
	$(call install,$(ROS_VENV),ros-dev$(comma)test$(comma)video); \
	touch $@; fi

# No TensorFlow: what the contracts with others need, the oldest Flower and a client of the protocol that
# `edge-agent serve` speaks. That client asks for older versions of two packages than robots have; the
# others are those of constraints.txt.
$(FLWR_VENV)/.installed: pyproject.toml constraints.txt | $(UV)
	@python="$$($(call find_python,3.11))"; \
	test -x $(FLWR_VENV)/bin/python || "$$python" -m venv $(FLWR_VENV); \
	grep -vE '^(flwr|greenlet|ml-dtypes)==' constraints.txt > $(FLWR_VENV)/constraints.txt; \
	$(call install,$(FLWR_VENV),agent$(comma)test,$(FLWR_VENV)/constraints.txt,"flwr==$(OLDEST_FLWR).*" "tritonclient[grpc$(comma)http]>=2.60" prometheus-client jinja2)
	@touch $@

# No TensorFlow. torch comes first, and by pip, which knows where a machine has a CPU build (find-links,
# extra-index-url); what an index calls torch brings 3 GB of CUDA.
$(TORCH_VENV)/.installed: pyproject.toml constraints.txt | $(UV)
	@python="$$($(call find_python,3.11))"; \
	test -x $(TORCH_VENV)/bin/python || "$$python" -m venv $(TORCH_VENV); \
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -E '^torch==' constraints.txt | cut -d' ' -f1)"; \
	$(call install,$(TORCH_VENV),torch-dev)
	@touch $@

$(PIPELINES_VENV)/.installed: pyproject.toml constraints.txt | $(UV)
	@python="$$($(call find_python,3.11))"; \
	test -x $(PIPELINES_VENV)/bin/python || "$$python" -m venv $(PIPELINES_VENV); \
	$(PIPELINES_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -E '^torch==' constraints.txt | cut -d' ' -f1)"; \
	$(call install,$(PIPELINES_VENV),pipelines-dev)
	@touch $@
