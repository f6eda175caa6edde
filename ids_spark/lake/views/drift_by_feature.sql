-- One row for each feature and night; `kind` is `class_mix` for the mix of predicted classes.
-- name: the feature
-- kind: `feature` or `class_mix`
-- event_date: the night
-- drift_index: population stability index against benign train rows; null without rows
-- drift_level: `stable`, `moderate`, `significant` or `too_few_rows`
-- drift_before: the index of the scored night before; null without one
-- nights_significant: nights with significant drift up to this one
-- rows: flows of the night
-- share_out_of_range: share of them outside the range of train
-- model: model that the night was scored with
-- model_version: its version
select name,
       kind,
       event_date,
       drift_index,
       drift_level,
       lag(drift_index) over nights as drift_before,
       count(*) filter (drift_level = 'significant') over nights as nights_significant,
       "rows",
       (below_range + above_range) / nullif("rows", 0) as share_out_of_range,
       model,
       model_version
from drift
window nights as (partition by kind, name order by event_date)
order by event_date desc, drift_index desc nulls last, name
