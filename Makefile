# Needs Go and make; a C compiler adds the race detector.
.DEFAULT_GOAL := help
GO ?= go
RACE := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)
VERSION ?= dev
# A pipeline is a file, or one of those that the demo has a story about. What phasectl reads
# from the environment is also what is deployed.
PIPELINE ?= $(PIPELINE_FILE)
DEFINITION = $(firstword $(wildcard $(PIPELINE) scripts/dev/demo/$(PIPELINE).yaml) $(PIPELINE))
PACKAGING = $(GO) run ./scripts/packaging --version '$(VERSION)' $(if $(PIPELINE),--pipeline '$(DEFINITION)')
APP := github.com/phasegate/phasegate/shared/app

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z\/-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build build/phasectl
	@mkdir -p build
	hash=$$($(PACKAGING) --hash) && \
	$(GO) build -ldflags "-X $(APP).Version=$(VERSION) -X $(APP).SourceHash=$$hash" -o build/phasectl ./scripts/phasectl

# The BigQuery emulator is a module of its own: what links it takes minutes. Its largest
# packages are generated: without inlining and debug information they take a third less time
# and memory to compile. Where less than 6 GB are free, one compiler runs at a time.
BQEMU_FLAGS := $(foreach p,go-googlesql googlesqlwasm2go,-gcflags='github.com/goccy/$(p)=-l -dwarf=false') \
	-gcflags='github.com/ncruces/go-sqlite3-wasm/v2=-l -dwarf=false' \
	$(shell awk '/^MemAvailable/ && $$2 < 6000000 {print "-p 1"}' /proc/meminfo 2>/dev/null)
build/bqemu: $(wildcard scripts/dev/bqemu/*.go) scripts/dev/bqemu/copy.sh scripts/dev/bqemu/go.mod scripts/dev/bqemu/go.sum ## Build the emulator of BigQuery that test-all, local and demo use
	@echo "building build/bqemu, the BigQuery emulator: some minutes where nothing is cached"
	@GO='$(GO)' sh scripts/dev/bqemu/copy.sh build
	cd scripts/dev/bqemu && $(GO) build -modfile ../../../build/bqemu.mod -ldflags '-s -w' $(BQEMU_FLAGS) -o ../../../build/bqemu .
	@rm -rf build/emulator build/engine

# Its size is limited to 25 MB, because every instance of a guarded service loads it.
build/guard: $(shell find shared scripts/guard -name '*.go' -not -name '*_test.go') go.mod go.sum ## Build phasectl guard alone, a small static binary for containers
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./scripts/guard
	@test $$(wc -c <$@) -le 25000000 || { echo "$@ is larger than 25 MB"; rm $@; exit 1; }

.PHONY: demo
demo: build ## Replay a night of the NBA pipeline on this machine; PIPELINE=retail that of another
	@build/phasectl demo $(if $(filter-out file,$(origin PIPELINE)),--pipeline '$(DEFINITION)')

.PHONY: local
local: build ## Run the whole system on this machine until Ctrl-C; with build/bqemu its tables have rows
	@build/phasectl local $(if $(filter-out file,$(origin PIPELINE)),--pipeline '$(DEFINITION)') $(if $(wildcard build/bqemu),--seed)

# What the outcome of a test depends on. A folder's time changes when a file is removed.
# make test-all runs make test first, unless it has passed since any of these changed.
TESTED := $(shell find functions shared scripts terraform docs .ci .github go.mod go.sum Makefile README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md \( -type f -o -type d \) -not -path '*/.terraform*')
GOTEST := $(GO) run ./scripts/verify/gotest
# Packages at a time: one more than there are processors, because some wait most of the time.
PACKAGES := $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)

.PHONY: test
test: ## Run every test that needs Go and make alone
	@mkdir -p build && rm -f build/tested && touch build/testing
	@$(GOTEST) --alone --record build/skipped.json -- -p $(PACKAGES) -shuffle=on -timeout 20m ./...
	@mv build/testing build/tested

build/tested: $(TESTED)
	@$(MAKE) --no-print-directory test

# Packages whose code, or the code that they drive, is concurrent. What plays a month, or many
# completions on the Firestore emulator, tells the race detector nothing new and takes minutes.
RACED := ./functions/... $(addprefix ./shared/,app cycle delivery deployed guard/... health lease notify processor receipt reconcile statuspage store/... sweep warehouse) \
	$(addprefix ./scripts/,dev/devcmd dev/emulators dev/local dev/processors dev/serve phasectl)
NOT_RACED := OfAMonth|AMonthIn|AMonthOf|AtOnce_OnFirestore

.PHONY: test-all
test-all: build/bqemu build/tested ## Run all other tests: on the emulators, in a browser, with the race detector, larger counts
	$(GO) run ./scripts/dev/emulators -- make --no-print-directory test-emulated
	$(GOTEST) -- -shuffle=on -timeout 20m -run 'TestSimulation$$|TestMutantsAreCaught|TestEverySchedule|TestCrashMatrix|TestGrowth_Three' ./shared/cycle -sim.seeds=20000 -sim.mutants -sim.preemptions=2 -crash.all -growth.years
	$(GOTEST) -- -shuffle=on -timeout 20m ./scripts/verify/simulation -sim.seeds=1000 -sim.mutants
	$(GOTEST) -- -shuffle=on -timeout 20m -run 'TestFailureModes_ChangesMakeTestsFail$$' ./scripts/verify/failures -changes
	$(GOTEST) -- -shuffle=on -timeout 20m -run 'TestSimulation$$|TestEverySchedule|TestMutantsAreCaught' ./shared/guard -sim.seeds=20000 -sim.preemptions=2 -sim.mutants
	$(GOTEST) -- -shuffle=on -timeout 20m -run TestBill_MonthlyCostOfPipelines ./scripts/dev/demo -bill.large
	$(GOTEST) -- -shuffle=on -timeout 20m -run AfterADeployment ./functions/reconcile -relay.periods=168

.PHONY: test-emulated
test-emulated:
ifeq ($(RACE),)
	@echo "no C compiler: tests run without the race detector"
	$(GOTEST) --only build/skipped.json -- -shuffle=on -timeout 40m
else
	$(GOTEST) -- -race -shuffle=on -timeout 40m -skip '$(NOT_RACED)' $(RACED)
	$(GOTEST) -- -shuffle=on -timeout 40m -run AtOnce_OnFirestore ./shared/cycle
	$(GOTEST) --only build/skipped.json --except '$(RACED)' -- -shuffle=on -timeout 40m
endif

.PHONY: sim
sim: SEEDS ?= 100000
sim: FROM ?= 1
sim: ## Play SEEDS=100000 worlds in which everything goes wrong, from FROM=1; SEED=n replays one
	$(GO) test -count=1 -timeout 0 -v -run 'TestSimulation$$' ./shared/cycle $(if $(SEED),-sim.seed=$(SEED),-sim.from=$(FROM) -sim.seeds=$(SEEDS))

.PHONY: systems
systems: SEEDS ?= 10000
systems: FROM ?= 1
systems: ## Play SEEDS=10000 whole systems, functions and reconciliation included, from FROM=1; SEED=n replays one
	$(GO) test -count=1 -timeout 0 -v -run 'TestSimulation$$' ./scripts/verify/simulation $(if $(SEED),-sim.seed=$(SEED),-sim.from=$(FROM) -sim.seeds=$(SEEDS))

.PHONY: explore
explore: PREEMPTIONS ?= 3
explore: ## Take every schedule of a small world with at most PREEMPTIONS=3; SCHEDULE=s replays one
	$(GO) test -count=1 -timeout 0 -v -run 'TestEverySchedule$$' ./shared/cycle -sim.preemptions=$(PREEMPTIONS) $(if $(SCHEDULE),-sim.schedule=$(SCHEDULE))

.PHONY: soak
soak: MINUTES ?= 10
soak: build/bqemu ## Large counts: 300,000 worlds, schedules with 3 preemptions, kills at random moments for MINUTES=10, 200 of guards
	$(MAKE) sim SEEDS=300000
	$(MAKE) systems SEEDS=20000
	$(MAKE) explore PREEMPTIONS=3
	REQUIRE_EMULATORS=1 E2E_MINUTES=$(MINUTES) $(GO) run ./scripts/dev/emulators -- \
		$(GO) test $(RACE) -count=1 -timeout 0 -v -run TestKill_ ./scripts/verify/e2e
	REQUIRE_EMULATORS=1 $(GO) run ./scripts/dev/emulators -- \
		$(GO) test -count=1 -timeout 0 -v -run TestKill_ ./scripts/verify/guardtest -guard.messages=10000 -guard.kills=200

.PHONY: hooks
hooks: ## Have git check each commit: format, vet, pipeline file, that the functions stage and build
	git config core.hooksPath scripts/hooks

.PHONY: lint
lint: ## Check formatting, vet, staticcheck and the English
	@files=$$(gofmt -l .) || exit 1; if [ -n "$$files" ]; then echo "not gofmt-ed:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) run ./scripts/verify/prose

.PHONY: bench
bench: build/bqemu ## Run the benchmarks, compared with the alternatives
	$(GO) run ./scripts/dev/emulators -- $(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: package
package: ## Pack the functions into build/functions; PIPELINE=FILE replaces nba.yaml
	@$(PACKAGING)

.PHONY: release
release: ## Make the files of release VERSION=1.2.0 in build/release: phasectl, guard, functions, bill of materials, checksums
	@$(GO) run ./scripts/packaging/release --version '$(filter-out dev,$(VERSION))'

# What is deployed, and where. HASH= names archives that are there already, such as an
# earlier deployment's; without it the checkout is packed.
TERRAFORM := terraform -chdir=terraform
STATE_BUCKET ?= $(PROJECT)-phasegate-state
STATE_PREFIX ?= phasegate
DEPLOY_HASH = $(if $(HASH),$(HASH),$$($(PACKAGING) --hash))
DEPLOY_VARS = -var 'project=$(PROJECT)' -var 'region=$(REGION)' -var "source_hash=$$hash" \
	$(if $(PIPELINE),-var 'pipeline_file=$(abspath $(DEFINITION))')

# Terraform's console takes variables and refuses the other arguments of TF_ARGS, such as
# -auto-approve: this leaves variables and their files in "$@".
KEEP_VARIABLES = set -- $(TF_ARGS); n=$$\#; while [ $$n -gt 0 ]; do case $$1 in \
	-var|--var|-var-file|--var-file) set -- "$$@" "$$1" "$$2"; shift 2; n=$$((n-2));; \
	-var=*|--var=*|-var-file=*|--var-file=*) set -- "$$@" "$$1"; shift; n=$$((n-1));; \
	*) shift; n=$$((n-1));; esac; done
ENVIRONMENT = join(" ", concat([for name, value in local.settings : "-u $${name}" if value == ""], [for name, value in local.environment : "$${name}=$${value}"]))

.PHONY: deployable
deployable:
	$(if $(PROJECT),,$(error PROJECT= is required, such as make plan PROJECT=my-project REGION=us-central1))
	$(if $(REGION),,$(error REGION= is required, such as make plan PROJECT=my-project REGION=us-central1))
	@command -v terraform >/dev/null || { echo "terraform is not installed: https://developer.hashicorp.com/terraform/install"; exit 1; }
	$(if $(HASH),,$(PACKAGING))
	$(TERRAFORM) init -input=false -reconfigure -backend-config='bucket=$(STATE_BUCKET)' -backend-config='prefix=$(STATE_PREFIX)'

.PHONY: plan
plan: deployable ## Show what deploy would change; PROJECT=, REGION=
	hash=$(DEPLOY_HASH) && $(TERRAFORM) plan $(DEPLOY_VARS) $(TF_ARGS)

# Nothing is verified on the way back to an earlier archive, which must not wait for BigQuery.
.PHONY: verified
verified: deployable build
	@set -e; hash=$(DEPLOY_HASH); $(KEEP_VARIABLES); \
	answer=$$(echo '$(ENVIRONMENT)' | $(TERRAFORM) console $(DEPLOY_VARS) "$$@"); \
	case $$answer in '"'*PHASEGATE_SHADOW=*'"') ;; \
	*) echo "terraform console did not print the functions' environment, but: $$answer" >&2; exit 1;; esac; \
	environment=$${answer#?}; set -x; \
	env $${environment%?} build/phasectl doctor --before-deploy --project '$(PROJECT)' $(if $(PIPELINE),--pipeline '$(DEFINITION)') || [ $$? -eq 2 ]; \
	env $${environment%?} build/phasectl checks verify --project '$(PROJECT)' $(if $(PIPELINE),--pipeline '$(DEFINITION)')

.PHONY: deploy
deploy: deployable build $(if $(HASH),,verified) ## Package, apply terraform/, try the result; PROJECT=, REGION=, HASH= an earlier archive
	hash=$(DEPLOY_HASH) && $(TERRAFORM) apply $(DEPLOY_VARS) $(TF_ARGS) && \
	exports=$$($(TERRAFORM) output -raw exports) && eval "$$exports" && \
	build/phasectl smoke --source "$$hash" $(if $(PIPELINE),--pipeline '$(DEFINITION)')

.PHONY: verify-live
verify-live: ## Try a project of Google Cloud, and remove what that made; PROJECT=, PROCESSOR= and SWEEPER= service accounts, CLEAN=1
	@$(GO) run ./scripts/verify/live --project '$(PROJECT)' $(if $(PROCESSOR),--processor '$(PROCESSOR)') $(if $(SWEEPER),--sweeper '$(SWEEPER)') $(if $(CLEAN),--clean)

.PHONY: terraform-check
terraform-check: ## Check terraform/: format and contracts; validate and test where its provider can be had
	REQUIRE_EMULATORS= $(GO) test ./scripts/verify/terraform
	$(TERRAFORM) fmt -check -recursive
	@if out=$$($(TERRAFORM) init -backend=false -input=false -no-color 2>&1); then \
		$(TERRAFORM) validate && $(TERRAFORM) test; \
	elif echo "$$out" | grep -q "Failed to query available provider packages"; then \
		echo "terraform validate and test did not run: the google provider cannot be had here"; \
	else \
		echo "$$out"; exit 1; \
	fi
