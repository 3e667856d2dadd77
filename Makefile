# Needs Go and make; a C compiler adds the race detector.
.DEFAULT_GOAL := help
GO ?= go
RACE := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)
VERSION ?= dev
PACKAGING = $(GO) run ./scripts/packaging --version '$(VERSION)' $(if $(PIPELINE),--pipeline '$(PIPELINE)')
APP := github.com/phasegate/phasegate/shared/app

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build build/phasectl
	@mkdir -p build
	hash=$$($(PACKAGING) --hash) && \
	$(GO) build -ldflags "-X $(APP).Version=$(VERSION) -X $(APP).SourceHash=$$hash" -o build/phasectl ./scripts/phasectl

.PHONY: demo
demo: build ## Replay a night of the NBA pipeline on this machine
	@build/phasectl demo

.PHONY: local
local: build ## Run the whole system on this machine until Ctrl-C
	@build/phasectl local

.PHONY: test
test: ## Run every test
	@$(if $(RACE),,echo "no C compiler: tests run without the race detector")
	$(GO) run ./scripts/emulators -- $(GO) test $(RACE) -shuffle=on ./...
	$(if $(RACE),$(GO) test -shuffle=on -run TestCrashMatrix ./shared/cycle)

.PHONY: soak
soak: MINUTES ?= 10
soak: ## Kill the functions at random moments, for MINUTES=10
	REQUIRE_EMULATORS=1 E2E_MINUTES=$(MINUTES) $(GO) run ./scripts/emulators -- \
		$(GO) test $(RACE) -count=1 -timeout 0 -v -run TestNothingIsLost ./scripts/e2e

.PHONY: lint
lint: ## Check formatting, vet and staticcheck
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not gofmt-ed:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

.PHONY: bench
bench: ## Run the benchmarks, beside the alternatives
	$(GO) run ./scripts/emulators -- $(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: package
package: ## Pack the functions into build/functions; PIPELINE=FILE replaces nba.yaml
	@$(PACKAGING)
