"""The night as an Airflow DAG: needs apache-airflow-providers-apache-spark and a connection `spark_default`.

The worker of Airflow that submits has the cluster's settings (`export SPARK_CONF_DIR=…`, see `conf/cluster`): jobs
refuse a cluster without encryption. Secrets do not belong in the connection, whose options are on the command line.
"""

import datetime as dt

from airflow import DAG
from airflow.operators.python import ShortCircuitOperator
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

HOME, LAKE, LOGS = "/opt/ids_spark", "hdfs://namenode/ids", "hdfs://namenode/flow_logs"
CAPTURES = None  # a folder of packet captures, from which LOGS are extracted, such as "hdfs://namenode/captures"
ADAPT_DAYS = 0  # every so many nights the newest week is learned, as a challenger; 0: never

with DAG(
    "ids_spark_night",
    schedule="30 2 * * *",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": dt.timedelta(minutes=10)},
) as dag:
    shared = {"py_files": f"{HOME}/dist/ids_spark.zip", "conn_id": "spark_default"}
    score = SparkSubmitOperator(
        task_id="score",
        application=f"{HOME}/jobs/score.py",
        application_args=[
            *("--config", f"{HOME}/conf/nightly/night.yaml"),
            *("--set", f"lake={LAKE}"),
            *("--set", f"score.flow_logs={LOGS}"),
            # The date of the DAG run, also if it runs late: a cleared task scores the same date again.
            *("--set", "score.date={{ ds }}"),
        ],
        **shared,
    )
    purge = SparkSubmitOperator(
        task_id="purge",
        application=f"{HOME}/jobs/purge.py",
        application_args=["--config", f"{HOME}/conf/nightly/night.yaml", "--set", f"lake={LAKE}"],
        trigger_rule="all_done",  # also after exit code 3: the night is scored, but missing or degraded
        **shared,
    )
    score >> purge
    if ADAPT_DAYS:
        due = ShortCircuitOperator(
            task_id="due",
            python_callable=lambda logical_date: logical_date.toordinal() % ADAPT_DAYS == 0,
            trigger_rule="all_done",
        )
        adapt = SparkSubmitOperator(
            task_id="adapt",
            application=f"{HOME}/jobs/adapt.py",
            application_args=[
                *("--config", f"{HOME}/conf/nightly/night.yaml", "--config", f"{HOME}/conf/site.yaml"),
                *("--set", f"lake={LAKE}", "--set", f"adapt.flow_logs={LOGS}"),
            ],
            **shared,
        )
        score >> due >> adapt
    if CAPTURES is not None:
        extract = SparkSubmitOperator(
            task_id="extract",
            application=f"{HOME}/jobs/extract.py",
            application_args=[
                *("--config", f"{HOME}/conf/nightly/night.yaml", "--set", f"lake={LAKE}"),
                *("--set", f"extract.captures={CAPTURES}", "--set", f"extract.target={LOGS}"),
            ],
            **shared,
        )
        score.trigger_rule = "all_done"  # also after exit code 3: captures that can be read are extracted
        extract >> score
