-- One row for each incident of each device, source or other entity; ask for one, such as `where entity = 'pump-17'`. Names are as they are stored: pseudonyms where nights are scored with a key.
-- entity: its name or pseudonym
-- kind: what it is, such as `device_id` or `src_ip`
-- role: `device`, or `source`
-- event_date: the night
-- incident_id: the incident
-- severity: of the incident
-- category: of the incident
-- flows: its own flagged flows in the incident; null if it is not among those with most
-- incident_flows: flagged flows of the incident
-- alerts: its own alerts: windows with more flagged flows than false alarms explain
-- log10_p: the smallest p-value of these; null without one
-- life: of the incident
-- state: of the incident
-- shown: whether the incident is on the page
-- verdict: the newest verdict on the incident when the night was ranked
-- type: of the device in the inventory; null if unknown
-- department: in the inventory; null if unknown
with named as (
  select event_date, incident_id, 'device' as role, unnest(devices, recursive := true) from incidents
  union all by name
  select event_date, incident_id, 'source' as role, unnest(sources, recursive := true) from incidents
),
alerted as (
  select event_date,
         incident_id,
         case when is_source then 'source' else 'device' end as role,
         entity_kind as kind,
         entity as name,
         count(*) as alerts,
         min(log10_p) as log10_p
  from alerts
  group by all
)
select coalesce(named.name, alerted.name) as entity,
       coalesce(named.kind, alerted.kind) as kind,
       coalesce(named.role, alerted.role) as role,
       i.event_date,
       i.incident_id,
       i.severity,
       i.category,
       named.flows,
       i.flows as incident_flows,
       coalesce(alerted.alerts, 0) as alerts,
       alerted.log10_p,
       i.life,
       i.state,
       i.shown,
       i.verdict,
       known.type,
       known.department
from named
full join alerted using (event_date, incident_id, role, kind, name)
join incidents i
  on i.event_date = coalesce(named.event_date, alerted.event_date)
 and i.incident_id = coalesce(named.incident_id, alerted.incident_id)
left join (
  select event_date, incident_id, any_value(type) as type, any_value(department) as department, name
  from (select event_date, incident_id, unnest(inventory, recursive := true) from incidents)
  group by all
) known
  on known.event_date = i.event_date
 and known.incident_id = i.incident_id
 and known.name = coalesce(named.name, alerted.name)
order by i.event_date desc, i."rank" nulls last, entity
