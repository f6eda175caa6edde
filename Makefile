# ids_spark: every target sets up what it needs. `make` alone prints help.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV    := .venv
ENV     := . $(VENV)/env.sh
LOCKS   := $(wildcard conf/locks/*.txt)
SOURCES := $(wildcard ids_spark/*.py ids_spark/*.json)
ZIP     := dist/ids_spark.zip

DATA    ?=
LAKE    ?= $(if $(DATA),runs/local,runs/synthetic)
MODELS  ?= dnn gru_dnn
CLASSES ?= 2 6 19
CONF    ?= conf/small.yaml
SET     ?=
SCALE   ?= 0.002
PART    ?= prep
OUT     ?= runs/bench
ROUNDS  ?= 3
SCALES  ?= 1 0.25 4
CASES   ?=
MASTER  ?= local[$(shell n=$$(nproc); echo $$((n > 2 ? n : 2)))]
ARGS    ?=

comma  := ,
empty  :=
space  := $(empty) $(empty)
list    = [$(subst $(space),$(comma),$(strip $(1)))]
REPLICA := $(LAKE)/replica
SOURCE   = $(if $(DATA),$(DATA),$(REPLICA))
OPTIONS  = --config $(CONF) --set lake=$(LAKE) --set ingest.source=$(SOURCE) --set replica.target=$(REPLICA) \
           --set "train.models=$(call list,$(MODELS))" --set "train.classes=$(call list,$(CLASSES))" \
           $(foreach setting,$(SET),--set $(setting))
submit   = $(ENV); spark-submit --master '$(MASTER)' --py-files $(ZIP) jobs/$(1).py $(OPTIONS)

##@ Run
.PHONY: run
run: package ## All jobs on DATA (default: a small synthetic replica), then a table. DATA= LAKE= MODELS= CLASSES= SET= CONF=
	$(if $(DATA),,$(call submit,replica))
	$(call submit,ingest)
	$(call submit,features)
	$(call submit,train)
	$(call submit,score)
	$(call submit,report)

.PHONY: replica
replica: package ## Synthetic flows of SCALE times the data set's size into LAKE/replica
	$(call submit,replica) --set replica.scale=$(SCALE)

.PHONY: prep
prep: package ## ingest and features alone, on DATA or the replica of LAKE
	$(call submit,ingest)
	$(call submit,features)

.PHONY: ingest features train score
ingest features train score: package ## That job alone
	$(call submit,$@)

.PHONY: table
table: package ## The newest metrics of every model in LAKE
	$(call submit,report)

.PHONY: leakage
leakage: package ## Duplicates and leakage of the flows in LAKE: one page below LAKE/reports/leakage
	$(call submit,leakage)

##@ Develop
.PHONY: test
test: package ## All tests, in local-mode Spark. ARGS="-k name" picks some
	$(ENV); python -m pytest $(ARGS)

.PHONY: check
check: setup ## Format, lint, types and the layering of the modules
	$(ENV); ruff format --check .; ruff check .; mypy; lint-imports --no-cache

.PHONY: format
format: setup ## Rewrite the sources in the common format
	$(ENV); ruff format .; ruff check --fix .

.PHONY: bench
bench: setup ## Beside pandas, polars and plain Spark: a table and OUT/bench.json. PART= OUT= SCALES= ROUNDS= CASES=
	$(ENV); python -m tests.bench --part $(PART) --out $(OUT) --scales $(SCALES) --rounds $(ROUNDS) \
	  $(if $(CASES),--cases $(CASES))

.PHONY: package
package: $(ZIP) ## dist/ids_spark.zip for spark-submit --py-files

$(ZIP): $(SOURCES) $(VENV)/.ready
	@$(ENV); python -m ids_spark.package $@

##@ Set up
.PHONY: setup
setup: $(VENV)/.ready ## Virtual environment with every locked package; done by the targets that need it

$(VENV)/.ready: docker/install.sh $(LOCKS)
	@docker/install.sh $(VENV) dev

.PHONY: clean
clean: ## Remove what make made, but no lake
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
	find ids_spark jobs tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## This text
	@awk 'BEGIN {FS = ":.*## "; print "ids_spark: distributed batch intrusion detection for the Internet of Medical Things"} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z][a-z -]*:.*## / {printf "  make %-27s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
