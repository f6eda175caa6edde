-- One row for each incident, with the week of its night; ask for one week, such as `where week = '2026-11-23'`.
-- week: the Monday of the week
-- event_date: the night
-- rank: its place among the open incidents of the night, from 1; null for others
-- incident_id: its id
-- severity: by the severity policy
-- category: kind of attack
-- sources: names of the sources with most flagged flows
-- devices: names of the devices with most flagged flows
-- flows: flagged flows
-- first_seen: time of the first of them
-- last_seen: time of the last one
-- life: `new`, `continuing` or `returned`
-- nights_seen: nights of the last seven with it
-- state: `open`, `muted`, `closed`, `learned` or `learning`
-- shown: whether it is on the page
-- verdict: the newest verdict on it when the night was ranked
-- model: model that scored the night
-- run_id: run that ranked it
select date_trunc('week', event_date)::date as week,
       event_date,
       "rank",
       incident_id,
       severity,
       category,
       [e.name for e in sources] as sources,
       [e.name for e in devices] as devices,
       flows,
       first_seen,
       last_seen,
       life,
       nights_seen,
       state,
       shown,
       verdict,
       model,
       run_id
from incidents
order by event_date desc, "rank" nulls last, incident_id
