# What is derived from the pipeline's definition. Names follow shared/pipeline:
# topic phasegate-FUNCTION, subscription TOPIC-FUNCTION, dead letter TOPIC-dead-letter.

locals {
  written = yamldecode(file(coalesce(var.pipeline_file, "${path.module}/../shared/pipeline/nba.yaml")))

  # Keys that the file may leave out have the defaults of shared/pipeline/defaults.go.
  schedules_written = try(local.written.schedules, [])
  relay             = [{ name = "relay", cron = "*/5 * * * *", function = "reconcile", job = "relay" }]
  pipeline = merge(local.written, {
    schedules = concat([for s in local.relay : s if !anytrue([for w in local.schedules_written : w.job == "relay"])], local.schedules_written)
  })

  transitions = { for t in local.pipeline.transitions : t.id => t }
  schedules   = { for s in local.pipeline.schedules : s.name => merge(s, { cron = join(" ", regexall("\\S+", s.cron)) }) }

  # The default of parent_processor, by transition.
  parent_processor = { for id, t in local.transitions : id => "${join("", [for w in split("_", try(t.formerly[0], id)) : title(w)])}Orchestrator" }

  # The Cloud Run services behind the phases, by phase.
  services = { for p in local.pipeline.phases : p.name => p.service if try(p.service, "") != "" }

  # Above 1,000 processors a completion waits up to 10 s for the record that it shares with others
  # (pace in shared/cycle/group.go). So an instance has more of them at once.
  wide_pipeline = anytrue([for p in local.pipeline.phases : length(try(p.processors, [])) > 1000])

  # Whether phasectl guard stands in front of a service.
  guarded = anytrue([for p in local.pipeline.phases : try(p.guard, null) != null])

  # Every subscription that feeds a function. Its topic, dead letter, rights and alerts
  # follow from its row.
  subscriptions = merge(
    { for id, t in local.transitions : "transition-${id}" => {
      function = "transition"
      topic    = t.upstream.topic
      query    = "?transition=${id}"
      shadow   = false
      # A hand-over waits for these messages.
      max_age = try(local.hand_over[id].critical, 900)
    } },
    { for id, t in local.transitions : "shadow-${id}" => {
      function = "transition"
      topic    = "phasegate-shadow-${id}"
      query    = "?transition=${id}&shadow=1"
      shadow   = true
      max_age  = 3600
    } },
    { for f in distinct([for s in local.pipeline.schedules : s.function]) : f => {
      function = f
      topic    = "phasegate-${f}"
      query    = ""
      shadow   = false
      # Jobs are repeated; one that hangs for longer than this hangs for good.
      max_age = 900
    } },
  )

  # Datasets whose tables the readiness checks read, by default those of the upstream phase.
  read_datasets = toset(flatten([for t in local.pipeline.transitions : try(t.checks.datasets, [
    for phase in local.pipeline.phases : [for p in phase.processors : split(".", p.table)[0]] if phase.name == t.upstream.phase && can(t.checks.before_hand_over)
  ])]))

  # Datasets of the phases' tables, which reconciliation counts.
  table_datasets = toset([for p in flatten([for phase in local.pipeline.phases : phase.processors]) : split(".", p.table)[0]])

  # What the health checks read besides.
  health_datasets = toset(try(local.pipeline.health.datasets, []))

  # Those of the tables that the sweep may remove duplicates from.
  swept_datasets = toset([for p in flatten([for phase in local.pipeline.phases : phase.processors]) : split(".", p.table)[0] if try(p.duplicates, "") == "remove"])

  # Topics that others publish to or read from, and those that are ours alone.
  pipeline_topics   = toset(flatten([for t in local.pipeline.transitions : [t.upstream.topic, t.downstream.topic]]))
  own_topics        = toset([for s in local.subscriptions : s.topic if !contains(local.pipeline_topics, s.topic)])
  downstream_topics = toset([for t in local.pipeline.transitions : t.downstream.topic])

  # Seconds that a hand-over may take, by transition: 1h30m is 5400.
  duration_form = "^(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?$"
  hand_over = { for id, t in local.transitions : id => {
    for level, d in t.hand_over : level =>
    3600 * tonumber(coalesce(regex(local.duration_form, d)[0], "0")) +
    60 * tonumber(coalesce(regex(local.duration_form, d)[1], "0")) +
    tonumber(coalesce(regex(local.duration_form, d)[2], "0"))
  } if can(t.hand_over) }

  # The longest regular pause between two runs of a schedule, in seconds. Null where
  # the cron expression does not show it; Terraform then refuses the job.
  cron_every = {
    minutes = "^\\*/([0-9]+) \\* \\* \\* \\*$"
    hours   = "^[0-9]+ \\*/([0-9]+) \\* \\* \\*$"
    hourly  = "^[0-9]+ \\* \\* \\* \\*$"
    daily   = "^[0-9]+ [0-9]+ \\* \\* \\*$"
    weekly  = "^[0-9]+ [0-9]+ \\* \\* [0-7]$"
  }
  interval = { for name, s in local.schedules : name => try(
    60 * tonumber(regex(local.cron_every.minutes, s.cron)[0]),
    3600 * tonumber(regex(local.cron_every.hours, s.cron)[0]),
    length(regex(local.cron_every.hourly, s.cron)) > 0 ? 3600 : 0,
    length(regex(local.cron_every.daily, s.cron)) > 0 ? 24 * 3600 : 0,
    length(regex(local.cron_every.weekly, s.cron)) > 0 ? 7 * 24 * 3600 : 0,
    null,
  ) }

  # Monitoring waits 84600 s at most before it calls a heartbeat absent.
  # https://docs.cloud.google.com/monitoring/alerts/concepts-indepth
  longest_watched = 84600 - 300
}
