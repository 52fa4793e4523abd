# Every target may be run again at any time. `make mount` and `make test` need nothing but this directory, make, and
# Python 3.11 or later on Debian or Ubuntu; elsewhere, install what `make setup` names.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The system's own first: distributions build it with profile-guided optimisation, which many others are not. On those,
# zerofs is slower by half.
PYTHON ?= $(or $(wildcard /usr/bin/python3.11),$(shell command -v python3.11 || command -v python3))
VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.ready

MOUNT ?= mnt
CONFIG := zerofs.toml

# `make install` links the commands to this checkout. mount(8) looks for its helpers in /sbin only.
PREFIX ?= /usr/local
DESTDIR ?=
HELPERDIR ?= /sbin

.PHONY: help setup system mount umount test test-slow test-programs programs minio check sim mutations figures far growth bench peers docs lock install uninstall

help: ## show this list
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: system $(READY) ## install what is missing: system packages, then .venv from requirements.lock

system:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "zerofs needs Python 3.11 or later" >&2; exit 1; }
	@missing=(); \
	version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	PATH="$$PATH:/usr/sbin:/sbin"; \
	command -v fusermount3 >/dev/null || missing+=(fuse3); \
	command -v gcc >/dev/null || missing+=(gcc libc6-dev); \
	command -v pkg-config >/dev/null || missing+=(pkg-config); \
	pkg-config --exists fuse3 2>/dev/null || missing+=(libfuse3-dev); \
	$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
		|| missing+=("python$$version-dev"); \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$$version-venv"); \
	if (( $${#missing[@]} )); then \
		command -v apt-get >/dev/null || { echo "please install: $${missing[*]}" >&2; exit 1; }; \
		echo "installing $${missing[*]}"; \
		sudo=(); (( EUID == 0 )) || sudo=(sudo); \
		"$${sudo[@]}" apt-get update -qq; \
		"$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$${missing[@]}" >/dev/null; \
	fi

$(READY): requirements.lock pyproject.toml | system
	@test -x $(RUN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing the locked libraries into $(VENV)"
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The configuration of `make mount`: an encrypted volume in ./zerofs-data, its password in a file only we can read.
define MAKE_CONFIG
import os, secrets, urllib.parse
here = urllib.parse.quote(os.getcwd())
private = lambda path, flags: os.open(path, flags, 0o600)
if not os.path.exists("zerofs.password"):
    with open("zerofs.password", "x", opener=private) as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    print("made zerofs.password: keep a copy in a safe place; without it the data cannot be read")
with open("$(CONFIG)", "x", opener=private) as file:
    file.write(f"""# Made by `make mount`. Every key is explained in docs/cli.md.
[storage]
url = "file://{here}/zerofs-data"
password_file = "zerofs.password"

[servers.fuse]
mountpoint = "mnt"
""")
print("made $(CONFIG): an encrypted volume in ./zerofs-data")
endef
export MAKE_CONFIG

mount: setup ## mount an encrypted directory at ./mnt, or MOUNT=DIR
	@test -e $(CONFIG) || { mkdir -p zerofs-data; $(RUN)/python -c "$$MAKE_CONFIG"; }
	@if $(RUN)/zerofs status "$(MOUNT)" >/dev/null 2>&1; then \
		echo "$(MOUNT) is mounted already"; \
	else \
		mkdir -p "$(MOUNT)"; \
		$(RUN)/zerofs mount -c $(CONFIG) "$(MOUNT)"; \
	fi
	@echo "store files in $(MOUNT); unmount with: make umount$(if $(filter-out mnt,$(MOUNT)), MOUNT='$(MOUNT)')"

umount: ## store everything and unmount ./mnt, or MOUNT=DIR
	@if $(RUN)/zerofs status "$(MOUNT)" >/dev/null 2>&1; then \
		$(RUN)/zerofs umount "$(MOUNT)"; \
	else \
		code=0; said=$$($(RUN)/zerofs umount "$(MOUNT)" 2>&1) || code=$$?; \
		if (( code == 20 )) && ! mountpoint -q "$(MOUNT)"; then \
			echo "$(MOUNT) is not mounted"; \
		elif (( code )); then \
			echo "$$said" >&2; exit $$code; \
		fi; \
	fi

test: setup minio ## run the tests
	@$(RUN)/pytest -n auto --dist worksteal -m "not slow and not programs"

test-slow: setup minio ## run the tests that `make test` leaves out
	@$(RUN)/pytest -n auto --dist worksteal -m "slow and not programs"

test-programs: setup minio programs ## run real programs on real mounts: git, PostgreSQL, fio, ...
	@$(RUN)/pytest -n auto --dist worksteal -m programs tests/programs

# What `make test-programs` runs, where apt-get is there; the tests say what is missing.
programs: setup
	@missing=$$($(RUN)/python -m tests.programs.packages); \
	sudo=(); (( EUID == 0 )) || sudo=(sudo -n); \
	if [[ -z "$$missing" ]]; then \
		:; \
	elif ! command -v apt-get >/dev/null || ! "$${sudo[@]}" true 2>/dev/null; then \
		echo "missing, so their tests will be skipped: $$missing" >&2; \
	else \
		echo "installing $$missing"; \
		"$${sudo[@]}" apt-get update -qq || true; \
		"$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null \
			|| echo "not all could be installed; their tests will be skipped" >&2; \
	fi
	@sh tests/programs/fetch_sources.sh zlib bzip2

# An S3 server to test against, where Go is there to build it; the tests say so when it is missing.
minio:
	@sh tests/build_minio.sh || echo "MinIO could not be built; its tests will be skipped" >&2

check: setup ## format, lint, types, floors, documentation
	@$(RUN)/ruff format --check .
	@$(RUN)/ruff check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports
	@$(RUN)/pytest -q $(wildcard tests/house) tests/cli/test_docs.py

sim: setup ## simulate crashes and faults: SEED=N replays one seed, SEEDS=N runs fresh ones
	@$(RUN)/python -m zerofs.testing.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),50))

mutations: setup ## remove guards one by one; a test must fail for each
	@$(RUN)/python -m tests.mutations

figures: setup ## count what the engine costs: requests, bytes, space, stalls
	@$(RUN)/python -m benches.figures

far: setup minio ## measure, beside boto3 alone, on an S3 server that is 20 ms away
	@$(RUN)/python -m benches.far

growth: setup ## measure how costs grow, to a million files and 10 GiB: half an hour
	@$(RUN)/python -m benches.growth

bench: setup ## measure, against the null filesystem and the plain directory
	@$(RUN)/python -m benches

peers: ## fetch the other filesystems that `make bench` measures where they are there
	@sh benches/fetch_peers.sh

docs: setup ## write docs/cli.md and zerofs.example.toml from the program
	@$(RUN)/python -m zerofs.cli.docs docs/cli.md
	@$(RUN)/python -m zerofs init - > zerofs.example.toml

lock: setup ## choose the versions of all libraries anew
	@test -x $(RUN)/pip-compile || $(RUN)/python -m pip install --quiet --disable-pip-version-check pip-tools
	@CUSTOM_COMPILE_COMMAND="make lock" $(RUN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras \
		--extra dev --build-deps-for editable --output-file requirements.lock pyproject.toml

install: setup ## link `zerofs` into PREFIX/bin, and the helper to where mount(8) finds it
	@install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(HELPERDIR)"
	@ln -sfn "$(abspath $(RUN))/zerofs" "$(DESTDIR)$(PREFIX)/bin/zerofs"
	@ln -sfn "$(abspath $(RUN))/zerofs" "$(DESTDIR)$(HELPERDIR)/mount.fuse.zerofs"
	@echo "linked $(DESTDIR)$(PREFIX)/bin/zerofs and $(DESTDIR)$(HELPERDIR)/mount.fuse.zerofs to this checkout"

uninstall: ## remove what `make install` linked
	@rm -f "$(DESTDIR)$(PREFIX)/bin/zerofs" "$(DESTDIR)$(HELPERDIR)/mount.fuse.zerofs"
