# Every alert, one map. A key is PAGE or PAGE/INSTANCE: docs/how-to/runbooks/PAGE.md says what it
# means and what to do. An alert has one severity and one or more conditions:
#
#   filter  a log entry that matches; at most one notification a rate_limit. Such a condition
#           stands alone in its alert
#   query   PromQL over metrics of the platform and counted events
#
# Monitoring charges by condition, and a project may have some 500 log metrics: what differs by
# function, subscription or job is one condition, grouped by that label.
# https://docs.cloud.google.com/monitoring/alerts/cost-control
#
# Log filters use =, !=, >=, :, AND and (… OR …) of values alone, so that a small evaluator can
# try them on entries that the code has really written. They name the log as well: Cloud Run
# writes an entry for each request, of severity ERROR when it is answered 5xx.
# https://docs.cloud.google.com/run/docs/logging
#
# Two environments may share a project, so a filter names its function by its full name.

locals {
  logs = { for log in ["stdout", "stderr", "varlog/system", "requests"] : log => "\"projects/${var.project}/logs/run.googleapis.com%2F${replace(log, "/", "%2F")}\"" }

  # Our lines are on standard output. That an instance ended says the platform, in its own log.
  revision      = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name"
  services_of   = { for name, names in { all = keys(local.functions), hands_over = local.hands_over, asks = [for f in keys(local.functions) : f if f != "health"] } : name => "(${join(" OR ", [for f in sort(names) : "\"${module.function[f].name}\""])})" }
  of_functions  = "${local.revision}=${local.services_of.all} AND logName=${local.logs.stdout}"
  of_function   = { for f in keys(local.functions) : f => "${local.revision}=\"${module.function[f].name}\" AND logName=${local.logs.stdout}" }
  of_processors = "${local.revision}=(${join(" OR ", [for s in sort(values(local.services)) : "\"${s}\""])})"

  # What the alerts on errors are called: Phase3Orchestrator and phase_3_analytics of the
  # pipeline file are Phase 3 Orchestrator and Phase 3 Analytics.
  orchestrators = join(", ", distinct([for t in local.pipeline.transitions :
    replace(replace([for p in [try(t.downstream.parent_processor, ""), local.parent_processor[t.id]] : p if p != ""][0], "/([A-Za-z])([0-9])/", "$1 $2"), "/([a-z0-9])([A-Z])/", "$1 $2")
  ]))
  environment_name = var.prefix == "" ? "" : "${trimsuffix(var.prefix, "-")}: "

  # Labels that an alert's text names, of log matches and of queries.
  # https://docs.cloud.google.com/monitoring/alerts/doc-variables
  logged       = { for l in ["transition", "period", "mode", "check", "table", "lock", "field", "receipt", "key"] : l => "$${log.extracted_label.${l}}" }
  grouped      = { for l in ["transition", "period", "mode", "check", "lock", "type", "service_name", "subscription_id"] : l => "$${metric_or_resource.label.${l}}" }
  several      = length(local.transitions) > 1
  cycle_labels = { for l in ["transition", "period", "mode"] : l => "EXTRACT(jsonPayload.${l})" }
  explain = { for name, l in { logged = local.logged, grouped = local.grouped } : name =>
  "phasectl explain ${l.period} ${l.mode}${local.several ? " --transition ${l.transition}" : ""} --project ${var.project}" }

  hour   = 3600
  metric = { for name, m in google_logging_metric.this : name => "logging_googleapis_com:user_${m.name}{monitored_resource=\"cloud_run_revision\"" }

  # Functions and processors: requests that fail, and errors in the log.
  failing = { for name, services in merge({ functions = join("|", [for f in sort(keys(local.functions)) : module.function[f].name]) }, local.services) : name => join(" ", [
    "sum by (service_name) (increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=~\"${services}\",response_code_class=\"5xx\"}[600s]))",
    "/ sum by (service_name) (increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=~\"${services}\"}[600s])) > 0.2",
    "and sum by (service_name) (increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=~\"${services}\",response_code_class=\"5xx\"}[600s])) > 5",
  ]) }

  # A regular run may be missed; two in a row are not. Long pauses get an hour's grace.
  relay_window     = max(600, [for name, s in local.schedules : local.heartbeat_window[name] if s.job == "relay" && local.interval[name] != null]...)
  heartbeat_window = { for name, s in local.interval : name => s + min(s, local.hour) if s != null }

  # The function health judges how late every job is, from when it was due: after a deployment
  # a daily job is not late for a day. Its own absence, and that of a relay that runs more than
  # once a day, only Monitoring can tell.
  heartbeats = { for name, s in local.schedules : name => s if contains(["relay", "health"], s.job) && try(local.interval[name] <= local.longest_watched, false) }

  alerts = { for key, a in merge(
    { function-errors = {
      name     = "${local.orchestrators} High Error Rate"
      title    = "A function fails"
      severity = "ERROR"
      conditions = {
        "More than a fifth of the requests to a function fail"    = { query = local.failing.functions }
        "A function has logged more than 5 errors in ten minutes" = { query = "sum by (service_name) (increase(${local.metric.function_errors}}[600s])) > 5" }
      }
      command = "gcloud logging read 'resource.labels.service_name=\"${local.grouped.service_name}\" AND severity>=ERROR' --freshness=1h --project=${var.project}"
    } },
    { for phase, service in local.services : "processor-errors/${phase}" => {
      name     = "${title(replace(phase, "_", " "))} Processors High Error Rate"
      title    = "The processors of ${phase} fail"
      severity = "ERROR"
      conditions = {
        "More than a fifth of the requests to the processors of ${phase} fail"     = { query = local.failing[phase] }
        "The processors of ${phase} have logged more than 5 errors in ten minutes" = { query = "sum by (service_name) (increase(${local.metric.processor_errors},service_name=\"${service}\"}[600s])) > 5" }
      }
      command = "gcloud logging read 'resource.labels.service_name=\"${service}\" AND severity>=ERROR' --freshness=1h --project=${var.project}"
    } },
    { dead-letters = {
      title    = "Messages of a subscription were dead-lettered"
      severity = "CRITICAL"
      query    = "max by (subscription_id) (pubsub_googleapis_com:subscription_num_undelivered_messages{monitored_resource=\"pubsub_subscription\",subscription_id=~\"${join("|", [for s in google_pubsub_subscription.dead_letter : s.name])}\"}) > 0"
      command  = "phasectl dead-letter list --project ${var.project}"
    } },
    { deliveries-failing = {
      title    = "Deliveries of a subscription fail"
      severity = "ERROR"
      conditions = {
        "A message has waited too long for its delivery" = { query = join(" or ", [for age in distinct([for s in local.subscriptions : s.max_age]) :
          "max by (subscription_id) (pubsub_googleapis_com:subscription_oldest_unacked_message_age{monitored_resource=\"pubsub_subscription\",subscription_id=~\"${join("|", [for key, s in local.subscriptions : google_pubsub_subscription.push[key].name if s.max_age == age])}\"}) > ${age}"
        ]) }
        # increase() counts; rate() would be per second.
        "More than 50 deliveries were refused in an hour" = { query = "sum by (subscription_id) (increase(pubsub_googleapis_com:subscription_push_request_count{monitored_resource=\"pubsub_subscription\",subscription_id=~\"${join("|", [for s in google_pubsub_subscription.push : s.name])}\",response_class!=\"ack\"}[3600s])) > 50" }
      }
      command = "gcloud pubsub subscriptions describe ${local.grouped.subscription_id} --project=${var.project}"
    } },
    { for p in distinct(flatten([for id, levels in local.hand_over : [for level, seconds in levels : { level = level, seconds = seconds }]])) :
      "hand-over-latency/${p.level}-${p.seconds}s" => {
        title    = "A hand-over took ${p.seconds} s or more"
        severity = p.level == "critical" ? "CRITICAL" : "WARNING"
        filter = join(" AND ", [
          "${local.revision}=${local.services_of.hands_over}", "logName=${local.logs.stdout}", "jsonPayload.event=\"batch_published\"",
          "jsonPayload.transition=(${join(" OR ", [for id, levels in local.hand_over : "\"${id}\"" if try(levels[p.level], null) == p.seconds])})", "jsonPayload.seconds>=${p.seconds}",
        ])
        labels     = local.cycle_labels
        rate_limit = 300
        command    = local.explain.logged
    } },
    # Each relay logs the cycles that are blocked, overdue or left unfinished. An incident is about
    # one cycle and open for as long as the relay logs it. Data that is late by minutes is usual, so
    # a blocked cycle fires after an hour without a pause.
    { cycle-blocked = {
      title    = "A hand-over has been blocked for an hour: its data is not ready"
      severity = "CRITICAL"
      query    = "sum by (mode, period, transition) (increase(${local.metric.cycle},event=\"cycle_blocked\"}[${local.relay_window}s])) > 0"
      duration = local.hour
      command  = local.explain.grouped
    } },
    { cycle-overdue = {
      title    = "A cycle is past its deadline, or too old, and is not handed over"
      severity = "CRITICAL"
      query    = "sum by (mode, period, transition) (increase(${local.metric.cycle},event=\"cycle_overdue\"}[${local.relay_window}s])) > 0"
      command  = local.explain.grouped
    } },
    # A finding about a whole period has no mode: the command is one about the period.
    { left-unfinished = {
      title    = "A period was left unfinished, or is full"
      severity = "ERROR"
      query    = "sum by (mode, period, transition, type) (increase(${local.metric.finding},found_by=\"relay\"}[${local.relay_window}s])) > 0"
      command  = "phasectl status ${local.grouped.period} --project ${var.project}"
      about    = "Period ${local.grouped.period} of ${local.grouped.transition}, mode ${local.grouped.mode} (empty: all of its modes), finding ${local.grouped.type}. The command shows the state of each cycle of the period. Hand over a late cycle with phasectl trigger, or close it with phasectl close: either ends the finding."
    } },
    { check-unknown = {
      title      = "A readiness check, or the schedule, has no answer"
      severity   = "ERROR"
      filter     = "${local.revision}=${local.services_of.asks} AND logName=${local.logs.stdout} AND jsonPayload.event=\"check_unknown\""
      labels     = merge(local.cycle_labels, { check = "EXTRACT(jsonPayload.check)" })
      rate_limit = local.hour
      command    = "phasectl checks verify --project ${var.project}"
      about      = "Check ${local.logged.check} of ${local.logged.period} ${local.logged.mode}."
    } },
    # The containers of processors log it, in a log of any name. The collection names the environment.
    { lock-lost = {
      title      = "A run lost its lock while it was at work"
      severity   = "ERROR"
      filter     = "jsonPayload.event=\"lock_lost\" AND jsonPayload.collection=\"${var.prefix}processing_locks\""
      labels     = { lock = "EXTRACT(jsonPayload.lock)" }
      rate_limit = 300
      command    = "phasectl locks list --project ${var.project}"
      about      = "Lock ${local.logged.lock}."
    } },
    { write-fenced = {
      title      = "A run without its lock tried to write, and was refused"
      severity   = "WARNING"
      filter     = "jsonPayload.event=\"write_fenced\" AND jsonPayload.collection=\"${var.prefix}processing_locks\""
      labels     = { lock = "EXTRACT(jsonPayload.lock)" }
      rate_limit = 300
      command    = "phasectl locks list --project ${var.project}"
      about      = "Lock ${local.logged.lock}."
    } },
    # A guard logs it in the container of its service. The collection names the environment.
    { for page, title in local.guarded ? {
      guard-lost       = "A guard lost its claim while its service was at work"
      guard-unknown    = "A guard does not know the result of its service"
      guard-unrecorded = "A guarded service did its work, and the receipt does not say so"
      guard-overlap    = "Two runs of one delivery were at work"
      guard-key-reused = "Two messages with different data have one key"
      } : {} : page => {
      title      = title
      severity   = "ERROR"
      filter     = "jsonPayload.event=\"${replace(page, "-", "_")}\" AND jsonPayload.collection=\"${var.prefix}receipts\""
      labels     = { receipt = "EXTRACT(jsonPayload.receipt)", key = "EXTRACT(jsonPayload.key)" }
      rate_limit = 300
      command    = "phasectl receipt show ${local.logged.receipt} --project ${var.project}"
      about      = "Delivery ${local.logged.key}."
    } },
    # Said at each relay, of a lock that was not renewed for three of its leases.
    { lock-leaked = {
      title    = "A lock was not released, and no run has asked for it since"
      severity = "WARNING"
      query    = "sum by (lock) (increase(${local.metric.finding},found_by=\"locks\",type=\"leaked_lock\"}[${local.relay_window}s])) > 0"
      command  = "phasectl locks list --project ${var.project}"
      about    = "Lock ${local.grouped.lock}."
    } },
    # The nightly reconciliation says once what it found; what it has repaired is not left.
    { for page, r in {
      findings-left     = { field = "findings", severity = "ERROR", title = "Reconciliation has findings that it could not repair" }
      reconcile-unknown = { field = "unknown", severity = "ERROR", title = "Reconciliation could not read or judge everything" }
      tracking-accuracy = { field = "not_shown", severity = "CRITICAL", title = "Tracking accuracy is below 100 %: tables have rows and are not shown as complete" }
      } : page => {
      title      = r.title
      severity   = r.severity
      filter     = "${local.of_function["reconcile"]} AND jsonPayload.event=\"report\" AND jsonPayload.${r.field}>=1"
      labels     = { transition = "EXTRACT(jsonPayload.transition)" }
      rate_limit = local.hour
      command    = "phasectl reconcile --days 7 --verbose --project ${var.project}"
    } },
    # Said of what is removed too: two runs have written one table.
    { for level, d in { found = { at_least = 1, severity = "WARNING" }, many = { at_least = 21, severity = "CRITICAL" } } : "duplicates/${level}" => {
      title                   = d.at_least == 1 ? "A table has duplicate rows" : "A table has more than ${d.at_least - 1} duplicate rows"
      severity                = d.severity
      filter                  = "${local.of_function["sweep"]} AND jsonPayload.event=\"duplicates_found\" AND jsonPayload.duplicates>=${d.at_least}"
      labels                  = { table = "EXTRACT(jsonPayload.table)", period = "EXTRACT(jsonPayload.period)" }
      rate_limit              = local.hour
      command                 = "phasectl sweep ${local.logged.period} --table ${local.logged.table} --project ${var.project}"
    } },
    # Health logs each check at each evaluation, so an incident is open for as long as the check
    # fails. An unknown answer must last: a source may answer at the next evaluation.
    { for page, h in {
      health-failing = { state = "failing", severity = "ERROR", within = 2 * local.hour, duration = 0, title = "A health check is failing" }
      health-unknown = { state = "unknown", severity = "WARNING", within = 1.5 * local.hour, duration = 2 * local.hour, title = "A health check has had no answer for hours" }
      } : page => {
      title    = h.title
      severity = h.severity
      query    = "sum by (check) (increase(${local.metric.finding},found_by=\"health\",state=\"${h.state}\"}[${h.within}s])) > 0"
      duration = h.duration
      command  = "phasectl health --verbose --project ${var.project}"
      about    = "Check ${local.grouped.check}."
    } },
    # The mail address gets this alert too: Slack cannot.
    { notify-failed = {
      title      = "A Slack notification could not be sent"
      severity   = "ERROR"
      filter     = "${local.of_functions} AND jsonPayload.event=\"notify_failed\""
      rate_limit = local.hour
      mail       = true
      command    = "gcloud logging read '${local.of_functions} AND jsonPayload.event=\"notify_failed\"' --freshness=1h --project=${var.project}"
    } },
    { message-quarantined = {
      title      = "An invalid message was put in quarantine"
      severity   = "WARNING"
      filter     = "${local.of_functions} AND jsonPayload.event=\"completion_quarantined\""
      labels     = { field = "EXTRACT(jsonPayload.field)" }
      rate_limit = local.hour
      command    = "phasectl quarantine list --project ${var.project}"
      about      = "Its field ${local.logged.field} is wrong."
    } },
    { heartbeat-absent = {
      title    = "A job has not succeeded for two of its rounds"
      severity = "CRITICAL"
      conditions = { for name, s in local.heartbeats : "Job ${name} has not succeeded for more than ${local.heartbeat_window[name]} s" => {
        # A count of zero and no data at all are the same silence.
        query = "(sum(increase(${local.metric.event},event=\"heartbeat\",service_name=\"${module.function[s.function].name}\",scheduled_job=\"${s.job}\"}[${local.heartbeat_window[name]}s])) or vector(0)) < 0.5"
        # The first run of a job that has just been deployed comes after one interval at most.
        duration = local.interval[name] + 300
      } }
      command = "gcloud scheduler jobs list --location=${var.region} --project=${var.project}"
    } },
    { scheduler-failed = {
      title      = "The scheduler could not send a job"
      severity   = "ERROR"
      filter     = "resource.type=\"cloud_scheduler_job\" AND resource.labels.job_id=(${join(" OR ", [for j in google_cloud_scheduler_job.this : "\"${j.name}\""])}) AND severity>=ERROR"
      labels     = { job = "EXTRACT(resource.labels.job_id)" }
      rate_limit = local.hour
      command    = "gcloud scheduler jobs describe $${log.extracted_label.job} --location=${var.region} --project=${var.project}"
    } },
    ) : key => {
    name       = "${local.environment_name}${try(a.name, "phasegate ${key}")}"
    page       = split("/", key)[0]
    title      = a.title
    severity   = a.severity
    command    = a.command
    about      = try(a.about, "")
    rate_limit = try(a.rate_limit, null)
    channels   = distinct(concat(a.severity == "CRITICAL" ? local.channels.critical : local.channels.other, try(a.mail, false) ? [google_monitoring_notification_channel.email.id] : []))
    conditions = [for title, c in try(a.conditions, { (a.title) = a }) : {
      title = title, filter = try(c.filter, null), labels = try(a.labels, {}), query = try(c.query, null), duration = try(c.duration, 0)
    }]
  } }
}

resource "google_monitoring_alert_policy" "this" {
  for_each = local.alerts

  display_name          = each.value.name
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = each.value.channels
  user_labels           = local.labels

  dynamic "conditions" {
    for_each = each.value.conditions
    content {
      display_name = conditions.value.title

      dynamic "condition_matched_log" {
        for_each = conditions.value.filter == null ? [] : [conditions.value]
        content {
          filter           = condition_matched_log.value.filter
          label_extractors = condition_matched_log.value.labels
        }
      }

      dynamic "condition_prometheus_query_language" {
        for_each = conditions.value.filter == null ? [conditions.value] : []
        content {
          query                     = condition_prometheus_query_language.value.query
          duration                  = "${condition_prometheus_query_language.value.duration}s"
          evaluation_interval       = "60s"
          disable_metric_validation = true # a metric exists from its first value on; alerts exist before
        }
      }
    }
  }

  alert_strategy {
    auto_close = "${24 * local.hour}s"

    dynamic "notification_rate_limit" {
      for_each = each.value.rate_limit == null ? [] : [each.value.rate_limit]
      content {
        period = "${notification_rate_limit.value}s"
      }
    }
  }

  documentation {
    subject   = "${local.environment_name}${each.value.title}"
    mime_type = "text/markdown"
    content   = <<-EOT
      ${each.value.title}. ${each.value.about}

      Look first:

          ${each.value.command}

      Meaning and repair: ${var.runbooks}/${each.value.page}.md
    EOT

    links {
      display_name = "Runbook"
      url          = "${var.runbooks}/${each.value.page}.md"
    }
  }

  # Last: a heartbeat is missed only once the job that leaves it can run.
  depends_on = [google_cloud_scheduler_job.this, google_pubsub_subscription.push]
}
