"""Scores the flows of a night on the executors; only counts and evidence are returned to the driver.

A task holds one row group at a time, or a piece of a large one.

The champion and, if there is one, the challenger score every flow; only the champion's scores become predictions and
attributions.
"""

import contextlib
import datetime as dt
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import SparkContext

from ids_spark.alerts import evidence
from ids_spark.alerts.evidence import FlowKeys
from ids_spark.alerts.known_devices import KnownDevices
from ids_spark.base.arrays import Floats, Floats32, Ids, Ints, Mask, by_column, largest_columns
from ids_spark.base.spark_tasks import run_each
from ids_spark.base.text import one_line
from ids_spark.dataset import taxonomy
from ids_spark.dataset.tables import SCHEMA_VERSION, STATES, night_quarantine
from ids_spark.features import drift, ratios
from ids_spark.ingest import row_hash
from ids_spark.ingest.sources import bin_pack, scoring_tasks
from ids_spark.lake.parquet import keep_only, part_name, part_writer, write_part
from ids_spark.models import inference, threshold
from ids_spark.models.artifact import ModelUnusable
from ids_spark.score import night_reader, night_refused, prediction_columns
from ids_spark.score.identifiers import Identifiers
from ids_spark.score.night_files import NightRowGroup
from ids_spark.score.night_flags import Flags, as_evidence, count_champion, covered, flags_of
from ids_spark.score.night_reader import NightRows, Refused
from ids_spark.score.night_tasks import LevelledModel, NightCounts, NightTask, no_counts

UNKNOWN_HOUR: Final = -1
_HOURS_A_DAY: Final = 24
_LARGE: Final = 1e15  # of a scaled feature; a network's numbers end at 3e38
_PLAIN: Final = ("flow_id",)  # distinct in every row, so a dictionary saves nothing


def score_row_groups(spark_context: SparkContext, row_groups: Sequence[NightRowGroup], task: NightTask) -> NightCounts:
    """Score every row group of a night; writes predictions and quarantine."""
    by_row_group = {row_group.row_group: row_group for row_group in row_groups}
    tasks = scoring_tasks(list(by_row_group), spark_context.defaultParallelism)
    partitions = [
        [by_row_group[row_group] for row_group in partition] for partition in bin_pack(list(by_row_group), tasks)
    ]
    # Sent with the function: a broadcast would leave the key and the devices in a file on disk.
    identifiers, known = task.identifiers, task.known
    shared = spark_context.broadcast(replace(task, identifiers=Identifiers(), known=KnownDevices()))

    def score_partition(numbered: tuple[int, list[NightRowGroup]]) -> NightCounts:
        index, own = numbered
        return _score_partition(index, own, replace(shared.value, identifiers=identifiers, known=known))

    total = no_counts(task)
    for scored in run_each(spark_context, list(enumerate(partitions)), score_partition):
        total.add(scored)
    keep_only(total.parts, task.target, task.quarantine)
    shared.destroy()
    return total


def _score_partition(index: int, row_groups: Sequence[NightRowGroup], task: NightTask) -> NightCounts:
    total, name, contract = no_counts(task), part_name(index), task.contract
    metadata = {"ids_spark.data_origin": task.data_origin, "ids_spark.model": task.champion.model.card.name}
    with contextlib.ExitStack() as open_files:

        @functools.cache  # opened with the first refused row
        def quarantine() -> Callable[[pa.Table], None]:
            columns = night_quarantine(task.read_spec.pass_through, task.config.event_time)
            return open_files.enter_context(
                part_writer(task.quarantine, name, columns, metadata, ("source_file", "reason"))
            )

        def predictions() -> Iterator[pa.Table]:
            for row_group in row_groups:
                file = row_group.row_group.name
                for rows in night_reader.read_row_group(row_group, task.read_spec, task.identifiers):
                    total.add_read(rows)
                    refused = [rows.refused] if len(rows.refused) else []
                    if len(rows.source_rows):
                        predicted, lost = _predict(file, rows, task, total)
                        refused += [lost] if len(lost) else []
                        yield predicted
                    for each in refused:
                        yield from _refuse(file, each, task, total, quarantine())

        texts = [f.name for f in contract if pa.types.is_string(f.type) and f.name not in _PLAIN]
        write_part(task.target, name, predictions(), contract, metadata, [*texts, "top3.list.element.class_name"])
        if index == 0:  # without refused rows an empty table replaces an older one
            quarantine()
    total.merged_traffic(), total.merged_refused(), total.champion.merged_evidence(), total.challenger.merged_evidence()
    total.parts.append(name)
    return total


def _refuse(
    file: str, refused: Refused, task: NightTask, total: NightCounts, write: Callable[[pa.Table], None]
) -> Iterator[pa.Table]:
    """Write and count refused rows; yield predictions of those that one feature at its benign median makes scorable."""
    logits, flagged = np.full(len(refused), np.nan), np.zeros(len(refused), dtype=np.bool_)
    if len(refused.single):
        at = pa.array(refused.single)
        passed = refused.rows.select([f.name for f in refused.rows.schema if f.name in task.read_spec.pass_through])
        columns = [
            passed[name].take(at) if name in passed.column_names else pa.nulls(len(at), pa.string())
            for name in task.read_spec.pass_through
        ]
        numbers = refused.rows["source_row"].to_numpy()[refused.single]
        rows = NightRows(
            refused.values,
            pa.table(columns, names=list(task.read_spec.pass_through)),
            numbers,
            task.read_spec.nothing_refused,
        )
        predicted, _ = _predict(file, rows, task, total, refused.feature)
        place = refused.single[np.searchsorted(numbers, predicted["source_row"].to_numpy())]
        logits[place] = predicted["attack_logit"].to_numpy()
        flagged[place] = np.asarray(pc.not_equal(predicted["state"].cast(pa.string()), STATES[0]))
        yield predicted
    write(task.identifiers.columns(refused.rows).append_column("scored", pa.array(~np.isnan(logits))))
    total.quarantined.update(
        {each["values"]: each["counts"] for each in refused.rows["reason"].value_counts().to_pylist()}
    )
    night_refused.count(file, refused, logits, flagged, task, total)


def _predict(
    file: str, rows: NightRows, task: NightTask, total: NightCounts, imputed: Ints | None = None
) -> tuple[pa.Table, Refused]:
    """Score one row group.

    Args:
        file: Name of its file.
        rows: Its rows that can be scored.
        task: Of the night.
        total: Counts are added to it.
        imputed: Index in the features of `task.read_spec` of the feature that is at its benign median, of each row;
            default: of none.

    Returns:
        Predictions, one row for each flow, and the flows without a finite score, whose feature values are finite but
        too large for the model; of imputed rows these are left out.
    """
    levelled, card, config = task.champion, task.champion.model.card, task.config
    values, matrix, probabilities = _forward(levelled, rows, task, imputed)
    logits, lost = threshold.attack_logits(probabilities), task.read_spec.nothing_refused
    if (bad := np.isnan(logits)).any():
        at_fault = features_at_fault(matrix, card.features, task.read_spec.features)
        rows, lost = night_reader.without_unscorable(rows, bad, at_fault, file, task.read_spec)
        values = {name: column[~bad] for name, column in values.items()}
        matrix, probabilities, logits = matrix[~bad], probabilities[~bad], logits[~bad]
        imputed = None if imputed is None else imputed[~bad]
    n = len(rows.source_rows)
    hours, other_date = _hours(rows.pass_through[config.event_time], task.event_date)
    ids = prediction_columns.predicted_ids(probabilities, card.classes)
    flows = night_refused.flows_of(rows.pass_through, task)
    keys = night_refused.keys_of(flows, file, task)
    if imputed is None:
        total.rows_scored += n
        total.scored_by_file[file] += n
        total.of_another_date += other_date
        total.bin_counts.add(drift.count_bins(levelled.model.preprocessor.histograms(card.features), values))
        total.champion.class_mix += _class_mix(hours, ids[card.classes])
    else:
        total.rows_imputed += n
    total.traffic.append(evidence.traffic(keys))
    if task.known.devices:
        total.add_unknown(task.known.unknown(keys.devices))
    flags = flags_of(levelled, matrix, probabilities, logits)
    columns_of_flags = count_champion(file, rows, flows, keys, task, values, matrix, flags, total)
    if task.challenger is not None and not total.challenger_fault:
        try:
            _score_challenger(file, rows, flows, keys, task, task.challenger, flags, hours, total, imputed)
        except ModelUnusable as error:  # its weights do not fit: only this shows when the network is made
            total.challenger_fault = one_line(error)
    known: dict[str, Any] = {
        "source_file": prediction_columns.constant(file, pa.string(), n),
        "source_row": pa.array(rows.source_rows),
        **_columns(task.identifiers.columns(rows.pass_through)),
        **prediction_columns.score_columns(probabilities, ids, task.contract),
        "attack_logit": pa.array(logits.astype(np.float32)),
        **columns_of_flags,
        **_constants(task, n),
    }
    if imputed is not None:
        known["imputed"] = prediction_columns.dictionary(imputed.astype(np.int32), task.read_spec.features)
    elif "lineage" in config.columns:
        known["row_key"] = pa.array(row_hash.row_keys([rows.values[name] for name in card.source_features]))
    return prediction_columns.assemble(known, task.contract), lost


def features_at_fault(matrix: Floats32, features: Sequence[str], raw: Sequence[str]) -> Ints:
    """Return the raw feature to which a score that is not finite is due, as an index in `raw`; shape (rows,).

    It is the largest raw input. If that is no large number, a derived one overflows: the last source of the largest
    one, as a quotient names its denominator last.

    Args:
        matrix: Scaled features, shape (rows, features).
        features: Names of its columns.
        raw: Names of raw features, with all sources of `features`.
    """
    size, sources = np.abs(matrix), np.array([raw.index(ratios.sources_of(name)[-1]) for name in features])
    of_raw = np.where([name in raw for name in features], size, 0)
    largest = np.where(of_raw.max(axis=1) >= _LARGE, of_raw.argmax(axis=1), size.argmax(axis=1))
    found: Ints = sources[largest]
    return found


def _forward(
    levelled: LevelledModel, rows: NightRows, task: NightTask, imputed: Ints | None
) -> tuple[dict[str, Floats], Floats32, Floats32]:
    """Return raw and derived features, scaled ones and probabilities of rows; `imputed` as in `_predict`.

    The benign median of a feature is that of the model's benign validation rows, its reference of attributions; of one
    that it reads in derived features only, that of its train rows. Derived features are computed from it.
    """
    model, values, features = levelled.model, dict(rows.values), levelled.model.card.features
    places: dict[str, Mask] = {}
    medians: dict[str, float] = {}
    if imputed is not None and model.validation_scores is not None:  # the scoring context refuses models without
        places = {name: imputed == i for i, name in enumerate(task.read_spec.features) if (imputed == i).any()}
        medians = dict(zip(features, model.validation_scores.baseline, strict=True))
        for name, own in places.items():
            fitted = model.preprocessor
            median = fitted.raw(name, medians[name]) if name in medians else fitted.median(name)
            values[name] = np.where(own, median, values[name])
    values = ratios.with_derived(values, features)
    matrix = by_column(model.preprocessor.transform(values, features))
    for column, name in enumerate(features):
        if name in places:
            matrix[places[name], column] = medians[name]
    return values, matrix, inference.forward(model, matrix, task.config.batch_rows)


def _score_challenger(
    file: str,
    rows: NightRows,
    flows: pa.Table,
    keys: FlowKeys,
    task: NightTask,
    levelled: LevelledModel,
    of_champion: Flags,
    hours: Ids,
    total: NightCounts,
    imputed: Ints | None,
) -> None:
    """Add counts and evidence of the challenger for the same flows."""
    _, matrix, probabilities = _forward(levelled, rows, task, imputed)
    logits = threshold.attack_logits(probabilities)
    flags = flags_of(levelled, matrix, probabilities, logits)
    known = np.isfinite(logits)  # a flow without a finite score is neither flagged nor counted
    if imputed is None:
        total.challenger.class_mix += _class_mix(hours[known], largest_columns(probabilities)[known])
    total.challenger.flagged += len(flags.at)
    total.challenger.unknown += int(flags.unknown.sum())
    total.flagged_by_both += len(np.intersect1d(flags.at, of_champion.at, assume_unique=True))
    allowed, _ = covered(flows, task, flags)
    found = as_evidence(file, rows, flags, allowed)
    total.challenger.evidence.append(evidence.evidence(keys, found))


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    return {name: table[name].combine_chunks() for name in table.column_names}


def _constants(task: NightTask, rows: int) -> dict[str, Any]:
    card, contract = task.champion.model.card, task.contract
    values = {
        "model_version": card.version,
        "schema_version": SCHEMA_VERSION,
        "run_id": task.read_spec.run_id,
        "scored_at": task.scored_at,
        "data_origin": task.data_origin,
    }
    return prediction_columns.constants(values, contract, rows)


def _hours(times: pa.ChunkedArray, event_date: dt.date) -> tuple[Ids, int]:
    """Return the hour of each flow in UTC, -1 if unknown, and the number of flows of another date."""
    known = np.asarray(pc.is_valid(times))
    hours: Ids = np.asarray(pc.hour(times).cast(pa.int32()).fill_null(UNKNOWN_HOUR))
    dates = times.cast(pa.date32()).cast(pa.int32()).fill_null(0)
    other = np.asarray(dates) != (event_date - dt.date(1970, 1, 1)).days
    return hours, int((other & known).sum())


def _class_mix(hours: Ids, class_ids: Ids) -> Counter[tuple[int, int]]:
    n = len(taxonomy.CLASS19)
    counts = np.bincount((hours.astype(np.int64) + 1) * n + class_ids, minlength=(_HOURS_A_DAY + 1) * n)
    return Counter({(int(i) // n - 1, int(i) % n): int(counts[i]) for i in np.flatnonzero(counts)})
