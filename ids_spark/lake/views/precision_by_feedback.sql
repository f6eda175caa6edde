-- One row for each category of incidents, over all nights: what people decided about those that they saw.
-- category: kind of attack
-- seen: incidents on the pages, and those with a verdict
-- true: of these, called `true`
-- benign: of these, called `benign`
-- undecided: of these, without such a verdict
-- precision: share of `true` among the decided ones; null without any
-- first_night: first night with such an incident
-- last_night: last night with one
with newest as (
  select event_date,
         incident_id,
         arg_max(verdict, (created_at, run_id, verdict <> 'unlearn'))
           filter (verdict in ('true', 'benign', 'unlearn')) as decision
  from verdicts
  group by all
),
seen as (
  select i.event_date, i.category, newest.decision
  from incidents i
  left join newest using (event_date, incident_id)
  where newest.incident_id is not null or (i.state = 'open' and i.shown)
)
select category,
       count(*) as seen,
       count(*) filter (decision = 'true') as "true",
       count(*) filter (decision = 'benign') as benign,
       count(*) filter (decision is null or decision = 'unlearn') as undecided,
       count(*) filter (decision = 'true')
         / nullif(count(*) filter (decision in ('true', 'benign')), 0) as precision,
       min(event_date) as first_night,
       max(event_date) as last_night
from seen
group by category
order by category
