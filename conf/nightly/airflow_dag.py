"""The night as an Airflow 3 DAG: extract the flow logs from new captures, score, adapt, remove old nights.

Link this file into the folder of DAGs, and set the variables of Airflow below. Tasks run on the worker of Airflow as
its user, who needs this checkout with its environment (`docker/install.sh .venv run`, `make package`) and, for a
cluster, `SPARK_CONF_DIR` (see `conf/cluster`): jobs refuse a cluster without encryption. Airflow needs none of the
packages of this project, and no provider but `standard`. Secrets, such as the key of pseudonyms, are files that
`night.yaml` names, or variables in the worker's environment: none is on a command line or in a variable of Airflow.

| variable of Airflow | meaning |
|---|---|
| `ids_spark_lake`, `ids_spark_logs` | the lake, the flow logs |
| `ids_spark_captures` | a folder of packet captures, from which the flow logs are extracted; default: none |
| `ids_spark_master` | `--master` of `spark-submit`; default: `local[*]` |
| `ids_spark_config` | default: `conf/nightly/night.yaml` |
| `ids_spark_adapt_days` | every so many nights the newest week is learned, as a challenger; default 0: never |
| `ids_spark_home` | the checkout; default: that of this file |

The night of a DAG run is the date before it. It scores those of the 14 dates up to this one that have no result for
their present files: late logs are scored by the next run, nights of an outage by the first run after it, and a task
that is cleared changes nothing unless files have changed. With `IDS_SPARK_RUNS_PER_NIGHT=24` in the environment where
this file is parsed, it runs every hour and scores the date so far (`score.runs_per_night`); adapt and purge follow
once a day, in its first run that succeeds.

Exit codes of jobs: 0, the task succeeds. 3, done with warnings: it succeeds, and `without_warnings`, the last task, is
skipped and names the jobs. 2, refused: it fails at once, because running it again changes nothing. All others, also of
a killed job, or 75 while another run for this lake lives, also one of `night.sh`: it is retried. `purge` runs all the
same, unless extract or score was refused: the lake or the configuration may be the wrong one.
"""

import datetime as dt
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator, Context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

DONE, REFUSED, WARNINGS = 0, 2, 3
RUNS_PER_NIGHT = int(os.environ.get("IDS_SPARK_RUNS_PER_NIGHT", "1"))
HOURLY = RUNS_PER_NIGHT > 1
CHECKOUT = Path(__file__).resolve().parents[2]


class Job(BaseOperator):
    """One job, by `conf/nightly/job.sh`; returns its exit code, 0 or 3.

    Args:
        task_id: Its name.
        settings: `key=value`.
        config: A further configuration, below `conf`.
        only_if: The task is skipped if this is empty.
    """

    template_fields = ("home", "settings", "variables", "only_if")

    def __init__(
        self,
        *,
        task_id: str,
        settings: Sequence[str] = (),
        config: str | None = None,
        only_if: str = "yes",
        **given: Any,
    ) -> None:
        super().__init__(task_id=task_id, **given)
        self.settings, self.config, self.only_if = list(settings), config, only_if
        self.home = f"{{{{ var.value.get('ids_spark_home', '{CHECKOUT}') }}}}"
        self.variables = {
            "LAKE": "{{ var.value.ids_spark_lake }}",
            "MASTER": "{{ var.value.get('ids_spark_master', 'local[*]') }}",
            "CONF": "{{ var.value.get('ids_spark_config', '') }}",
        }
        self.hook = SubprocessHook()

    def execute(self, context: Context) -> int:
        """Run the job to its end."""
        if not self.only_if.strip():
            raise AirflowSkipException(f"{self.task_id}: not in this run")
        options = [part for setting in self.settings for part in ("--set", setting)]
        if self.config is not None:
            options = ["--config", f"{self.home}/conf/{self.config}", *options]
        # Airflow's own settings, such as the address of its database with the password, are none of the job's business.
        known = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
        code = self.hook.run_command(
            [f"{self.home}/conf/nightly/job.sh", self.task_id, *options], env=known | self.variables, cwd=self.home
        ).exit_code
        if code == REFUSED:
            context["ti"].xcom_push(key="refused", value=True)
            raise AirflowFailException(f"{self.task_id} was refused (exit code 2): the log says what to correct")
        if code not in (DONE, WARNINGS):
            raise AirflowException(f"{self.task_id} ended with {code}: the old tables remain; it can be run again")
        if code == WARNINGS:
            self.log.warning(
                "%s is done, with warnings (exit code 3): read the page of the night, or the log", self.task_id
            )
        return int(code)

    def on_kill(self) -> None:
        """End the job; its lake keeps the old tables."""
        self.hook.send_sigterm()


@task(trigger_rule="none_failed")
def without_warnings(ti: Any) -> None:
    """Succeed if every job ended with 0; skipped after warnings, upstream_failed after a failure."""
    codes = {job: ti.xcom_pull(task_ids=job) for job in JOBS}
    if warned := [job for job, code in codes.items() if code == WARNINGS]:
        raise AirflowSkipException(f"done, with warnings of {', '.join(warned)}")


JOBS = ("extract", "score", "adapt", "purge")
LOGS = "{{ var.value.ids_spark_logs }}"
CAPTURES = "{{ var.value.get('ids_spark_captures', '') }}"
# The time of the schedule, also of a run that starts late; of a run without, that of its trigger.
NIGHT = f"((dag_run.logical_date or dag_run.run_after) - macros.timedelta(hours={1 if HOURLY else 24}))"
# Once a day: not after a successful run of the same date, whenever that was; each of these has removed old nights.
BEFORE = "prev_data_interval_start_success"
FIRST = f"(not dag_run.logical_date or not {BEFORE} or {BEFORE}.date() < dag_run.data_interval_start.date())"
DAILY = FIRST if HOURLY else "true"
REFUSED_BEFORE = "ti.xcom_pull(task_ids='extract', key='refused') or ti.xcom_pull(task_ids='score', key='refused')"
DAYS = "(var.value.get('ids_spark_adapt_days', '0') | int)"

with DAG(
    "ids_spark_night",
    schedule="15 * * * *" if HOURLY else "30 2 * * *",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,  # one run scores every night of an outage
    max_active_runs=1,
    default_args={"retries": 2},  # after the delay that Airflow is configured for
    doc_md=__doc__,
    tags=["ids_spark"],
) as dag:
    extract = Job(
        task_id="extract",
        settings=[f"extract.captures={CAPTURES}", f"extract.target={LOGS}"],
        only_if=CAPTURES,
    )
    score = Job(
        task_id="score",
        settings=[
            f"score.flow_logs={LOGS}",
            f"score.first_date={{{{ ({NIGHT} - macros.timedelta(days=13)).date() }}}}",
            f"score.last_date={{{{ {NIGHT}.date() }}}}",
            "score.pending_nights=true",
            *([f"score.runs_per_night={RUNS_PER_NIGHT}"] if HOURLY else []),
        ],
        trigger_rule="none_failed",  # also without captures
    )
    adapt = Job(
        task_id="adapt",
        settings=[f"adapt.flow_logs={LOGS}"],
        config="site.yaml",
        only_if=f"{{{{ 'yes' if {DAYS} and {DAILY} and {NIGHT}.toordinal() % {DAYS} == 0 else '' }}}}",
    )
    purge = Job(
        task_id="purge",
        only_if=f"{{{{ 'yes' if {DAILY} and not ({REFUSED_BEFORE}) else '' }}}}",
        trigger_rule="all_done",
    )
    extract >> score >> adapt >> purge
    [extract, score, adapt, purge] >> without_warnings()
