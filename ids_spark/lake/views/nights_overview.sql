-- One row for each night that was scored, or is known to be missing, newest first.
-- event_date: the night
-- state: `missing` (no flow logs), `degraded` (its figures do not describe all traffic), `learning` or `provisional` (the site or model is new), else `operating`; of these `partial` while flows of the date are still to come
-- run_of_night: part of the date that was over when it was scored, of `runs_per_night`
-- runs_per_night: runs at a date
-- model: the champion of the night
-- model_version: its version
-- challenger: the challenger that scored the night too, with its version; null without one
-- flows: flows of its flow logs
-- flows_scored: flows that were scored
-- flows_quarantined: flows that were refused
-- flows_flagged: flows that were flagged
-- incidents: incidents, shown or not
-- incidents_shown: incidents on the page
-- incidents_high: of these, of severity `high` or `critical`
-- false_incidents_expected: false incidents that the attained levels give
-- false_incidents: budget of false incidents
-- drift_moderate: features with moderate drift
-- drift_significant: features with significant drift
-- degraded: why it is degraded
-- scored_at: when it was scored
-- run_id: the run that scored it
-- page: its page below the lake
-- data_origin: `measured` or `synthetic`
with shown as (
  select event_date,
         count(*) filter (severity in ('high', 'critical')) as high
  from incidents
  where shown and state = 'open'
  group by event_date
),
other as (
  select event_date, max(model || '/' || model_version) as challenger
  from nights
  where role = 'challenger'
  group by event_date
)
select n.event_date,
       case
         when list_contains([d.reason for d in n.degraded], 'missing') then 'missing'
         when len(n.degraded) > 0 then 'degraded'
         when n.run_of_night < n.runs_per_night then 'partial'
         else coalesce(n.stage, 'operating')
       end as state,
       n.run_of_night,
       n.runs_per_night,
       n.model,
       n.model_version,
       other.challenger,
       n.rows_in as flows,
       n.rows_scored as flows_scored,
       n.rows_quarantined as flows_quarantined,
       n.flows_flagged,
       n.incidents,
       n.incidents_shown,
       coalesce(shown.high, 0) as incidents_high,
       n.false_incidents_expected,
       n.false_incidents,
       n.drift_moderate,
       n.drift_significant,
       [d.text for d in n.degraded] as degraded,
       n.scored_at,
       n.run_id,
       'reports/night/event_date=' || n.event_date || '/night.html' as page,
       n.data_origin
from nights n
left join shown using (event_date)
left join other using (event_date)
where n.role = 'champion'
order by n.event_date desc
