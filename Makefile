# Each target installs what it needs on first use. `make` alone prints the help.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ifneq ($(words $(CURDIR)),1)
$(error the checkout is in '$(CURDIR)'; its path has blanks, which spark-submit and pip cannot use; move it to a path\
  without blanks)
endif

VENV    := .venv
ENV     := . $(VENV)/env.sh
LOCKS   := $(wildcard conf/locks/*.txt)
SOURCES := $(shell find ids_spark -type f -not -name "*.pyc")
ZIP     := dist/ids_spark.zip
BILL    := dist/ids_spark.cdx.json
PACKAGE_VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' ids_spark/__init__.py)
WHEEL   := dist/ids_spark-$(PACKAGE_VERSION)-py3-none-any.whl
ENVIRONMENT := dist/ids_env.tar.gz

DATA    ?=
LAKE    ?= $(if $(DATA),runs/local,runs/synthetic)
MODELS  ?= dnn gru_dnn
CLASSES ?= 2 6 19
FEATURE_SETS ?= paper operational
CONF    ?= conf/small.yaml
SET     ?=
SCALE   ?= 0.002
PART    ?= prep files skew train score nights extract outside
LOGS    ?=
CAPTURES ?=
DATE    ?= $(shell date -u -d yesterday +%F 2>/dev/null || date -u -v-1d +%F)
NIGHT   ?= gru_dnn-19-operational
NIGHTS  ?= 7
DAYS    ?= 90
HEAD     ?=
KEYS     ?=
VERDICTS ?=
IDS      ?=
VERDICT  ?=
OWNER    ?=
REASON   ?=
FORCE    ?=
SIGN     ?=
UNTIL    ?=
Q        ?=
DELTA    ?=
VIEW     ?=
DEVICE   ?=
FORMAT   ?=
OUT     ?= runs/bench
ROUNDS  ?= 3
SCALES  ?=
CASES   ?=
QUICK   ?=
BEFORE  ?=
N       ?= 200
SEED    ?= 1
SEEDS   ?= 20
MASTER  ?= local[$(shell n=$$(nproc); echo $$((n > 2 ? n : 2)))]
ARGS    ?=

comma  := ,
empty  :=
space  := $(empty) $(empty)
list    = [$(subst $(space),$(comma),$(strip $(1)))]
SYNTHETIC := $(LAKE)/synthetic
SOURCE   = $(if $(DATA),$(DATA),$(SYNTHETIC))
# A text for the shell, and a setting whose value is a path: for YAML, then for the shell. Blanks, quotes and # are kept.
quoted   = '$(subst ','\'',$(1))'
path     = --set $(call quoted,$(1)='$(subst ','',$(2))')
OPTIONS  = $(call path,lake,$(LAKE)) $(call path,ingest.source,$(SOURCE)) $(call path,synthesize.target,$(SYNTHETIC)) \
           --set "train.models=$(call list,$(MODELS))" --set "train.classes=$(call list,$(CLASSES))" \
           --set "train.feature_sets=$(call list,$(FEATURE_SETS))" \
           $(foreach setting,$(SET),--set $(call quoted,$(setting)))
submit   = $(ENV); spark-submit --master '$(MASTER)' --py-files $(ZIP) $(JAVA_$(1)) jobs/$(1).py \
           --config $(call quoted,$(or $(2),$(CONF))) $(OPTIONS)

# The only job that computes in the JVM: it needs the optimising compiler, which conf/spark disables for the others.
JAVA_forest = --driver-java-options -XX:+UseParallelGC

##@ Run
.PHONY: run
run: zip ## All jobs on DATA (default: synthetic flows), then a table. LAKE= MODELS= CLASSES= FEATURE_SETS= SET= CONF=
	$(if $(DATA),,$(call submit,synthesize))
	$(call submit,prepare)
	$(call submit,train)
	$(call submit,score)
	$(call submit,report)

.PHONY: synthesize
synthesize: zip ## Write synthetic flows, SCALE times the size of the data set, to LAKE/synthetic
	$(call submit,synthesize) --set synthesize.scale=$(SCALE)

.PHONY: prep
prep: zip ## Run ingest and features only, on DATA or the synthetic flows of LAKE
	$(call submit,prepare)

.PHONY: ingest features train score
ingest features train score: zip ## Run one job
	$(call submit,$@)

# The demo has its own lake and models of the second release, whose features `make nightly` can also extract from
# captures. They are trained for a few epochs on a tenth of the data set's size: those of `make run` have too few benign
# validation rows for the threshold of a night. A table shows what leaving out features costs.
OWN_LAKE := $(filter-out file,$(origin LAKE))
OWN_DATE := $(filter-out file,$(origin DATE))
nightly: LAKE := $(if $(LOGS)$(OWN_LAKE),$(LAKE),runs/nightly)
define demo_model
	test -d $(call quoted,$(LAKE)/models/$(NIGHT)) || { $(MAKE) --no-print-directory synthesize prep train \
	  score report LAKE=$(call quoted,$(LAKE)) SCALE=0.1 CONF=conf/large.yaml MODELS=gru_dnn CLASSES=19 \
	  SET=$(call quoted,synthesize.feature_schema=release39 train.epochs=16 train.schedule=cosine train.monitor=last \
	  $(SET)); }
endef
# A day of captures of a synthetic ward, whose devices are in 192.0.2.0/24.
define demo
	$(demo_model)
	test -d $(call quoted,$(LAKE)/captures/event_date=$(DATE)) || { $(call submit,synthesize_captures) \
	  $(call path,synthesize_captures.target,$(LAKE)/captures) --set synthesize_captures.date=$(DATE); }
endef
DEMO_NETWORK = --set 'extract.networks=[192.0.2.0/24]' $(call path,extract.inventory,$(LAKE)/captures/_inventory.csv)

# Its data are synthetic, so nothing in them is to be hidden.
DEMO_PLAIN = --set 'score.pseudonymise=[]'
DEMO_SCORE = $(DEMO_PLAIN) $(call path,score.inventory,$(LAKE)/captures/_inventory.csv)

# The configuration for flow logs and captures of a hospital: identifiers are stored as pseudonyms, under its key.
HOSPITAL = $(if $(filter-out file,$(origin CONF)),$(CONF),conf/nightly/night.yaml)

# $1: folder of captures, $2: folder of flow logs, $3: date, or nothing for every new night, $4: settings of extract,
# $5: settings of score, $6: configuration of both.
# With refused or broken captures (exit code 3) the others are scored, and the last line says so.
define extract_and_score
	@extracted=0 scored=0; { $(call submit,extract,$(6)) $(call path,extract.captures,$(1)) \
	  $(call path,extract.target,$(2)) $(if $(3),--set extract.date=$(3)) $(4); } || extracted=$$?; \
	test $$extracted = 0 || test $$extracted = 3 || exit $$extracted; \
	{ $(call submit,score,$(6)) $(call path,score.flow_logs,$(2)) --set "score.models=[$(NIGHT)]" \
	  --set $(if $(3),score.date=$(3),score.pending_nights=true) $(5); } || scored=$$?; \
	test $$extracted = 0 || echo 'make: parts of the captures were not extracted; the messages of extract, above, and' \
	  'audit/ name them' >&2; \
	test $$scored = 0 || exit $$scored; exit $$extracted
endef

.PHONY: nightly
nightly: zip ## Page of night DATE of LOGS by model NIGHT of LAKE; of CAPTURES, by default of all new nights; or a demo
	$(if $(and $(LOGS),$(CAPTURES)),$(error LOGS and CAPTURES are given; expected one of them))
	$(if $(LOGS),,$(if $(CAPTURES),$(if $(OWN_LAKE),,$(demo_model)),$(demo)))
	$(if $(LOGS),$(call submit,score,$(HOSPITAL)) --set score.date=$(DATE) $(call path,score.flow_logs,$(LOGS)) \
	  --set "score.models=[$(NIGHT)]",$(if $(CAPTURES),\
	  $(call extract_and_score,$(CAPTURES),$(LAKE)/flow_logs,$(if $(OWN_DATE),$(DATE)),,,$(HOSPITAL)),\
	  $(call extract_and_score,$(LAKE)/captures,$(LAKE)/ward_logs,$(DATE),$(DEMO_NETWORK),$(DEMO_SCORE))))

.PHONY: verdict
verdict: zip ## Verdicts on incidents: VERDICTS=CSV, or DATE= IDS="ID ID" VERDICT= OWNER= REASON= (UNTIL= for mute)
	$(call submit,verdict) $(if $(VERDICTS),$(call path,verdict.file,$(VERDICTS)),--set verdict.date=$(DATE) \
	  $(call path,verdict.incidents,$(IDS)) $(call path,verdict.verdict,$(VERDICT)) \
	  $(call path,verdict.owner,$(OWNER)) $(call path,verdict.reason,$(REASON)) \
	  $(if $(UNTIL),--set verdict.until=$(UNTIL)))

# A week of a synthetic hospital whose benign flows differ from those of the data set, with attacks on one night.
define demo_week
	$(demo_model)
	for day in 7 6 5 4 3 2 1; do \
	  night=$$(date -u -d "-$$day days" +%F 2>/dev/null || date -u -v-$${day}d +%F); \
	  test -d $(call quoted,$(LAKE)/week)/event_date=$$night || { $(call submit,synthesize_night) \
	    $(call path,synthesize_night.target,$(LAKE)/week) --set synthesize_night.date=$$night \
	    --set synthesize_night.feature_schema=release39 --set synthesize_night.shift=1 \
	    --set synthesize_night.flows=30000 --set synthesize_night.episodes=$$((day == 4 ? 4 : 0)); } || exit; \
	done
endef
adapt: LAKE := $(if $(LOGS)$(OWN_LAKE),$(LAKE),runs/nightly)
.PHONY: adapt
adapt: zip ## Learn the newest NIGHTS (7) of LOGS (default: extracted to LAKE; or a demo): a challenger of NIGHT, a page
	$(if $(LOGS)$(OWN_LAKE),,$(demo_week))
	$(call submit,adapt,$(HOSPITAL)) --config conf/site.yaml $(if $(LOGS)$(OWN_LAKE),,$(DEMO_PLAIN)) --set adapt.nights=$(NIGHTS) --set adapt.model=$(NIGHT) \
	  $(call path,adapt.flow_logs,$(or $(LOGS),$(LAKE)/$(if $(OWN_LAKE),flow_logs,week)))

.PHONY: promote
promote: zip ## Set the champion of model NIGHT: VERSION= (latest, previous, …) ALIAS= (or challenger); FORCE=1 REASON=; SIGN=1
	$(call submit,promote) --set promote.model=$(NIGHT) --set promote.version=$(or $(VERSION),latest) \
	  --set promote.alias=$(or $(ALIAS),champion) $(if $(FORCE),--set promote.force=true) $(if $(SIGN),--set promote.sign=true) \
	  $(if $(REASON),$(call path,promote.reason,$(REASON)))

.PHONY: verify
verify: zip ## Check the hash chain of the audit of LAKE. HEAD= a logged hash, KEYS= public keys: also models and aliases
	$(call submit,verify) $(if $(HEAD),--set verify.head=$(HEAD)) \
	  $(if $(KEYS),--set "score.trusted_keys=$(call list,$(KEYS))")

.PHONY: purge
purge: zip ## Remove what is older than DAYS (default 90) from every table of LAKE; prints what remains, and why
	$(call submit,purge) --set purge.older_than_days=$(DAYS)

.PHONY: report
report: zip ## Show the newest metrics of every model in LAKE; page in LAKE/reports/run
	$(call submit,report)

.PHONY: export
export: zip ## Bring the Delta tables in DELTA to the state of LAKE
	$(call submit,export) $(if $(DELTA),$(call path,export.delta,$(DELTA)))

.PHONY: sql
sql: setup ## Ask LAKE in SQL: a prompt, or Q="select …", or VIEW=incidents_of_week DEVICE= DATE=; FORMAT=csv or json
	@$(ENV); python -m ids_spark.report.sql_command $(call path,lake,$(LAKE)) $(if $(filter-out file,$(origin CONF)),--config \
	  $(call quoted,$(CONF))) $(foreach setting,$(SET),--set \
	  $(call quoted,$(setting))) $(if $(Q),--query $(call quoted,$(Q))) $(if $(VIEW),--view $(call quoted,$(VIEW))) \
	  $(if $(DEVICE),--device $(call quoted,$(DEVICE))) $(if $(OWN_DATE),--date $(call quoted,$(DATE))) \
	  $(if $(FORMAT),--format $(FORMAT))

.PHONY: boost
boost: zip ## Train boosted trees (XGBoost) on the features in LAKE: models like the networks
	$(call submit,boost)

.PHONY: blend
blend: zip ## Make one model of a network and boosted trees of LAKE; NETWORK= its title (dnn)
	$(call submit,blend) $(if $(NETWORK),--set blend.network=$(NETWORK))

.PHONY: forest
forest: zip ## Train random forests on the features in LAKE, as a reference
	$(call submit,forest)

# The study's three networks with its recipe, a network in place of that of Dadkhah et al., the best network; as
# references a forest and boosted trees with default settings on the features as they are; boosted trees on the features
# of the best network, and the blend of both. Each job once for all models of one configuration. One rank for the small
# networks, because at a batch of 64 two ranks are slower (make bench). The best network, which takes most of the time, is
# trained at 19 classes for both feature sets, at 2 and 6 classes for `paper` alone.
STUDY = --set train.ranks=1 --set "train.models=[dnn,gru_dnn,lstm]"
BEST  = --set "train.models=[dnn]"
COARSE = --set "train.classes=[2,6]" --set "train.feature_sets=[paper]"
BLEND = --set blend.network=dnn-best --set blend.trees=xgboost-best
PLAIN = --set features.recipe=plain
.PHONY: benchmark table
benchmark table: zip ## Every model compared with the published figures; page in LAKE/reports/benchmark. DATA= SET=
	$(if $(DATA),,$(call submit,synthesize))
	$(call submit,ingest)
	$(call submit,features,conf/paper.yaml)
	$(call submit,features,conf/best.yaml)
	$(call submit,features,conf/best.yaml) $(PLAIN) --set features.ratios=false
	$(call submit,train,conf/paper.yaml) $(STUDY)
	$(call submit,train,conf/dadkhah.yaml) --set train.ranks=1 $(BEST)
	$(call submit,train,conf/best.yaml) $(BEST) --set "train.classes=[19]"
	$(call submit,train,conf/best.yaml) $(BEST) $(COARSE)
	$(call submit,forest,conf/paper.yaml) $(PLAIN)
	$(call submit,boost,conf/paper.yaml) $(PLAIN)
	$(call submit,boost,conf/best.yaml)
	$(call submit,blend,conf/best.yaml) $(BLEND) --set "train.classes=[19]"
	$(call submit,blend,conf/best.yaml) $(BLEND) $(COARSE)
	$(call submit,score)
	$(call submit,benchmark)

.PHONY: leakage
leakage: zip ## Audit duplicates and leakage of the flows in LAKE; page in LAKE/reports/leakage
	$(call submit,leakage)

##@ Develop
# Three files at a time, also on two CPUs: a quarter of the time they wait for JVMs, ranks, schedulers and deadlines. A
# file runs in one worker, which creates its fixtures once; so do all files of tests/cluster.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: test
test: zip ## Tests in local-mode Spark without those marked slow. ARGS="-k name" selects others
	$(ENV); python -m pytest $(or $(ARGS),-m "not slow" $(PARALLEL))

.PHONY: test-all
test-all: zip airflow ## Every test: also faults, benches, Airflow, every job on S3, and those of test-cluster
	$(ENV); python -m pytest $(PARALLEL) -o "norecursedirs=hdfs .*"

.PHONY: fuzz
fuzz: setup ## Jobs on N mutated inputs of SEED; those on which a check failed stay in runs/fuzz. N= SEED= ARGS=
	$(ENV); python -m tests.fuzz --count $(N) --seed $(SEED) --out runs/fuzz $(ARGS)

# A Spark worker writes its coverage data when it ends, so each task gets a new worker.
.PHONY: coverage
coverage: zip ## Line and branch coverage of `make test`, Spark's Python workers included
	$(ENV); PYSPARK_SUBMIT_ARGS='--conf spark.python.worker.reuse=false pyspark-shell' \
	  python -m pytest -m "not slow" $(PARALLEL) --cov --cov-report=term:skip-covered

.PHONY: test-cluster
test-cluster: zip ## A Spark master and two workers on loopback: jobs, faults, network security
	$(ENV); python -m pytest tests/cluster $(ARGS)

HDFS := $(VENV)/hdfs
.PHONY: test-hdfs
test-hdfs: zip $(HDFS)/.ready ## A NameNode and a DataNode on loopback: jobs, safe mode, a lost NameNode; not in test-all
	$(ENV); python -m pytest tests/hdfs $(ARGS)

$(HDFS)/.ready: tests/hdfs/install.sh tests/hdfs/packages.txt $(VENV)/.ready
	@$(ENV); tests/hdfs/install.sh $(abspath $(HDFS))

.PHONY: check
check: setup ## Format, lint, types, import rule
	$(ENV); ruff format --check .; ruff check .; mypy; lint-imports --no-cache

.PHONY: audit-deps
audit-deps: setup ## Known vulnerabilities of locked packages and jars, each with a decision. ARGS="--database FOLDER"
	$(ENV); PYTHONPATH=docker python -m supply_chain.audit $(ARGS)

.PHONY: format
format: setup ## Format the sources; write the tables of settings in jobs/README.md
	$(ENV); ruff format .; ruff check --fix .; python -m tests.support.settings_docs

.PHONY: bench
bench: setup ## Compare with pandas, polars, Spark and model.fit. QUICK=1 (5 minutes) PART= CASES= ROUNDS= SCALES= BEFORE= OUT=
	$(ENV); python -m tests.bench --part $(PART) --out $(call quoted,$(OUT)) --rounds $(ROUNDS) \
	  $(if $(QUICK),--quick,--models $(MODELS)) $(if $(SCALES),--scales $(SCALES)) $(if $(CASES),--cases $(CASES)) \
	  $(if $(RECOMMENDED),--recommended $(RECOMMENDED)) $(if $(BEFORE),--before $(call quoted,$(BEFORE)))

HELD_OUT = $(or $(DATA),$(or $(CICIOMT_DATA),../shared/data)/release39)
.PHONY: held-out
held-out: setup ## Leave each attack class out of training: what is flagged of it. DATA= ARGS="--draws 3" OUT=
	$(ENV); python -m tests.bench.held_out $(call quoted,$(HELD_OUT)) --out $(call quoted,$(OUT)) $(ARGS)

# Without these folders, synthetic captures and flows.
outside: SEEDS := $(if $(filter-out file,$(origin SEEDS)),$(SEEDS),5)
.PHONY: outside
outside: setup ## Other captures: called attack, flagged, false incidents, without and with local nights. CAPTURES= DATA= SEEDS=
	$(ENV); python -m tests.bench.outside --captures $(call quoted,$(or $(CAPTURES),../shared/captures)) \
	  --data $(call quoted,$(HELD_OUT)) --seeds $(SEEDS) --out $(call quoted,$(OUT)) $(ARGS)

contamination: LAKE := $(if $(filter-out file,$(origin LAKE)),$(LAKE),runs/nightly)
.PHONY: contamination
contamination: zip ## Attacks in the nights that are learned: what is left, with ARGS=--adapt their cost. LAKE= OUT=
	$(demo_model)
	$(ENV); python -m tests.bench.contamination --lake $(call quoted,$(LAKE)) --out $(call quoted,$(OUT)) $(ARGS)

nights: LAKE := $(if $(DATA)$(filter-out file,$(origin LAKE)),$(LAKE),runs/nightly)
.PHONY: nights
nights: zip ## Precision and false lines of incidents on nights with truth. SEEDS= LAKE= OUT= DATA= (test rows)
	$(demo_model)
	$(ENV); python -m tests.bench.nights --lake $(call quoted,$(LAKE)) --seeds $(SEEDS) --out $(call quoted,$(OUT)) \
	  $(if $(DATA),--data $(call quoted,$(DATA)))

.PHONY: package
package: $(ZIP) $(BILL) $(WHEEL) $(ENVIRONMENT) ## All in dist: zip, wheel, bill of materials (CycloneDX), ids_env.tar.gz for --archives

.PHONY: zip
zip: $(ZIP) ## Build dist/ids_spark.zip for spark-submit --py-files

# The zip file names the commit, so it is made again after one.
$(ZIP): $(SOURCES) $(VENV)/.ready $(wildcard .git/logs/HEAD)
	@$(ENV); python -m ids_spark.base.packaging $@

$(BILL): $(LOCKS) $(wildcard docker/supply_chain/*.py) ids_spark/__init__.py $(VENV)/.ready
	@$(ENV); PYTHONPATH=docker python -m supply_chain.sbom $@

# pip leaves its build folders in the checkout.
$(WHEEL): $(ZIP) $(wildcard pyproject.toml setup.py README.md jobs/* conf/* conf/*/*)
	@rm -f dist/ids_spark-*.whl
	@$(ENV); SOURCE_DATE_EPOCH=315532800 python -m pip wheel --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --no-index -w dist .
	@rm -rf build ids_spark.egg-info

# The program makes it again only if interpreter or locks have changed.
$(ENVIRONMENT): docker/environment_archive.py $(VENV)/.ready
	@$(ENV); PYTHONPATH=docker python -m environment_archive $@

##@ Set up
.PHONY: setup
setup: $(VENV)/.ready ## Install every locked package into .venv; run by the targets that need it

$(VENV)/.ready: docker/install.sh $(LOCKS)
	@docker/install.sh $(VENV) dev

# Its packages contradict those of the jobs, so it has an environment of its own.
.PHONY: airflow
airflow: $(VENV)/airflow/.ready ## Install Airflow into .venv/airflow, for the test of conf/nightly/airflow_dag.py

$(VENV)/airflow/.ready: conf/locks/airflow.txt $(VENV)/.ready
	@echo 'install: Airflow (~1 min)'
	@rm -rf $(@D); $(VENV)/bin/python -m venv $(@D)
	@$(@D)/bin/pip install -qq --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

.PHONY: clean
clean: ## Remove everything that make creates, except lakes
	rm -rf $(VENV) dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
	find ids_spark jobs tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "; \
	  print "ids_spark: distributed batch intrusion detection for the Internet of Medical Things"} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z][a-z -]*:.*## / {printf "  make %-27s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
