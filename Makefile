# The commands of .ci/run, one at a time. .ci/run is what has to pass, and the one
# truth: a test (docs/makefile_test.go) keeps the commands here the same as there.

.DEFAULT_GOAL := help
modules := $(shell find . -name go.mod -not -path '*/node_modules/*' -not -path './tools/lint/*' -exec dirname {} \;)
bin := bin

.PHONY: help
help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

.PHONY: ci
ci: ## everything that has to pass, as in CI
	.ci/run

.PHONY: check
check: generate fmt vet staticcheck build docs ## what needs no database, before the tests

.PHONY: dev
dev: ## a private PostgreSQL, an example job, a worker
	go run ./cmd/worker dev # not in CI

.PHONY: install
install: ## the binary as gworker, into the folder of go install
	go build -o "$$(d=$$(go env GOBIN); echo "$${d:-$$(go env GOPATH)/bin}")/gworker" ./cmd/worker # not in CI

.PHONY: generate
generate: ## write internal/dbgen from db
	CGO_ENABLED=0 go generate ./...

.PHONY: fmt
fmt: ## fail if gofmt would change a file
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }

.PHONY: vet
vet: ## go vet, in each module
	@set -e; for m in $(modules); do (cd $$m && go vet ./...); done

.PHONY: staticcheck
staticcheck: ## staticcheck, in each module
	CGO_ENABLED=0 go build -C tools -o ../$(bin)/staticcheck honnef.co/go/tools/cmd/staticcheck
	@set -e; for m in $(modules); do (cd $$m && $(CURDIR)/$(bin)/staticcheck ./...); done

.PHONY: lint
lint: ## golangci-lint, by .golangci.yml (building it takes minutes, once)
	CGO_ENABLED=0 go build -C tools/lint -o ../../$(bin)/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	$(bin)/golangci-lint run --allow-parallel-runners ./...

.PHONY: build
build: ## build all, examples and other modules too
	@set -e; mkdir -p $(bin); for m in $(modules); do (cd $$m && go build -o $(CURDIR)/$(bin)/ ./...); done

.PHONY: docs
docs: ## the snippets, links and paths of the documentation
	go test ./docs # not in CI: part of test

.PHONY: short
short: ## quick tests, about a minute
	go test -short ./... # not in CI: part of test

.PHONY: test
test: ## all tests but the heavy ones, with the race detector
	go test -race -timeout 30m ./...

.PHONY: heavy
heavy: ## real Node and Rust workers, PgBouncer, failover, old servers
	GWORKER_HEAVY=1 go test -race -count=1 -timeout 30m ./tests/interop ./tests/poolers ./tests/servers

.PHONY: bench
bench: ## a small round of the benchmark
	GWORKER_REQUIRE_RUST='' go -C bench test ./...

.PHONY: servers
servers: ## the oldest and the newest PostgreSQL
	go run ./tests/servers -quick -versions 12,18

.PHONY: chaos
chaos: ## chaos, in its short form
	GWORKER_CHAOS=7 go test -count=1 -v ./tests/chaos
