# A menu: `make help` lists it. Each target is a line or two of cargo.

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo

target  := x86_64-unknown-linux-gnu
husk    := target/$(target)/release/husk
docs    := target/docs
# What `--version` says of a release.
commit   = HUSK_COMMIT=$$(git describe --always --long --dirty --abbrev=40 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help build demo test unit integration vm lint bench sweep fuzz test-all install clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

build: ## Build the executable and print its size
	$(commit) $(CARGO) build --release
	@stat -c '$(husk): %s bytes' $(husk)

demo: build ## Run real containers, as whoever you are, and show what happens
	contrib/demo $(husk)

test: unit integration ## Run all tests; what cannot run here says why

unit: ## Run the tests beside the code
	$(CARGO) test --lib

integration: ## Run the tests of the executable (root and an ordinary user, if you are root)
	$(CARGO) test --test integration

test-all: test ## Run all tests, and the longer ones
	HUSK_TEST_ALL=1 $(CARGO) test --test integration

sweep: ## Kill husk at every system call of its verbs, and look for what is left (minutes)
	HUSK_SWEEP=1 $(CARGO) test --test integration -- sweep::
	HUSK_SWEEP=1 $(CARGO) test --test integration -- crowd::

vm: build ## Run what needs systemd and cgroup v2 in the virtual machine that HUSK_TEST_VM names
	contrib/vm-test $(husk)

fuzz: ## Fuzz the readers of foreign bytes, FUZZ_SECONDS each (60)
	fuzz/run $(or $(FUZZ_SECONDS),60)

lint: ## Check format, clippy, layers and unsafe code
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) test --test layering

bench: ## Compare with crun, runc, a C program, podman, docker and others, and bare links (root; BENCH="--part network")
	$(commit) $(CARGO) bench --bench compare -- $(BENCH)

install: build ## Install below PREFIX, with manuals and completions
	rm -rf $(docs)
	$(husk) internal docs $(docs)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(husk) $(DESTDIR)$(PREFIX)/bin/husk
	ln -sf husk $(DESTDIR)$(PREFIX)/bin/husk-runc
	install -m 644 $(docs)/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -D -m 644 $(docs)/completions/husk.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/husk
	install -D -m 644 $(docs)/completions/_husk $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_husk
	install -D -m 644 $(docs)/completions/husk.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/husk.fish

clean: ## Remove what was built
	$(CARGO) clean
