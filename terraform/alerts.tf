# Every alert, one map. A key is PAGE or PAGE/INSTANCE: docs/runbooks/PAGE.md says what it
# means and what to do. Kinds:
#
#   log_match   a log entry that matches filter; at most one notification a rate_limit
#   log_metric  more than so many entries within a window; with labels, for each of their
#               values by itself
#   promql      a query over metrics of the platform and counted events
#
# Log filters use =, >=, :, AND and (… OR …) of values alone, so that a small evaluator can try them on
# entries that the code has really written.
#
# Two environments may share a project, so a filter names its function by its full name.

locals {
  # Services whose errors count: our functions, and the processors behind the phases.
  watched = merge(
    { for f in keys(local.functions) : f => { page = "function", service = module.function[f].name, what = "function ${f}" } },
    { for phase, service in local.services : phase => { page = "processor", service = service, what = "the processors of ${phase}" } },
  )

  of_function  = { for f in keys(local.functions) : f => "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${module.function[f].name}\"" }
  of_functions = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=(${join(" OR ", [for f in sort(keys(local.functions)) : "\"${module.function[f].name}\""])})"
  cycle_labels = { for l in ["transition", "period", "mode"] : l => "EXTRACT(jsonPayload.${l})" }
  hour         = 3600

  # A regular run may be missed; two in a row are not. Long pauses get an hour's grace.
  relay_window     = max(600, [for name, s in local.schedules : local.heartbeat_window[name] if s.job == "relay" && local.interval[name] != null]...)
  heartbeat_window = { for name, s in local.interval : name => s + min(s, local.hour) if s != null }

  alerts = { for key, a in merge(
    { for key, w in local.watched : "${w.page}-errors/${key}" => {
      kind      = "log_metric"
      title     = "Errors in the log of ${w.what}"
      severity  = "ERROR"
      filter    = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${w.service}\" AND severity>=ERROR"
      more_than = 5
      within    = 600
      command   = "gcloud logging read 'resource.labels.service_name=\"${w.service}\" AND severity>=ERROR' --freshness=1h --project=${var.project}"
    } },
    { for key, w in local.watched : "${w.page}-5xx/${key}" => {
      kind     = "promql"
      title    = "More than a fifth of the requests to ${w.what} fail"
      severity = "ERROR"
      query = join(" ", [
        "sum(increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=\"${w.service}\",response_code_class=\"5xx\"}[600s]))",
        "/ sum(increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=\"${w.service}\"}[600s])) > 0.2",
        "and sum(increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=\"${w.service}\",response_code_class=\"5xx\"}[600s])) > 5",
      ])
      command = "gcloud logging read 'resource.labels.service_name=\"${w.service}\" AND httpRequest.status>=500' --freshness=1h --project=${var.project}"
    } },
    { for key, s in local.subscriptions : "dead-letters/${key}" => {
      kind     = "promql"
      title    = "Messages of ${google_pubsub_subscription.push[key].name} were given up"
      severity = "CRITICAL"
      query    = "max(pubsub_googleapis_com:subscription_num_undelivered_messages{monitored_resource=\"pubsub_subscription\",subscription_id=\"${google_pubsub_subscription.dead_letter[key].name}\"}) > 0"
      command  = "phasectl dead-letter list --topic ${s.topic} --project ${var.project}"
    } },
    { for key, s in local.subscriptions : "oldest-unacknowledged/${key}" => {
      kind     = "promql"
      title    = "A message of ${google_pubsub_subscription.push[key].name} has waited for more than ${s.max_age} s"
      severity = "ERROR"
      query    = "max(pubsub_googleapis_com:subscription_oldest_unacked_message_age{monitored_resource=\"pubsub_subscription\",subscription_id=\"${google_pubsub_subscription.push[key].name}\"}) > ${s.max_age}"
      command  = "gcloud logging read 'resource.labels.service_name=\"${module.function[s.function].name}\" AND severity>=WARNING' --freshness=1h --project=${var.project}"
    } },
    { for key, s in local.subscriptions : "redelivery-storm/${key}" => {
      kind     = "promql"
      title    = "Deliveries of ${google_pubsub_subscription.push[key].name} are refused over and over"
      severity = "ERROR"
      # increase() counts; rate() would be per second.
      query   = "sum(increase(pubsub_googleapis_com:subscription_push_request_count{monitored_resource=\"pubsub_subscription\",subscription_id=\"${google_pubsub_subscription.push[key].name}\",response_class!=\"ack\"}[3600s])) > 50"
      command = "gcloud logging read 'resource.labels.service_name=\"${module.function[s.function].name}\" AND jsonPayload.delivery_attempt>1' --freshness=1h --project=${var.project}"
    } },
    { for p in flatten([for id, levels in local.hand_over : [for f in local.hands_over : [for level, seconds in levels : { id = id, function = f, level = level, seconds = seconds }]]]) :
      "hand-over-latency/${p.id}-${p.level}-${p.function}" => {
        kind       = "log_match"
        title      = "A hand-over of ${p.id} took ${p.seconds} s or more"
        severity   = p.level == "critical" ? "CRITICAL" : "WARNING"
        filter     = "${local.of_function[p.function]} AND jsonPayload.event=\"batch_published\" AND jsonPayload.transition=\"${p.id}\" AND jsonPayload.seconds>=${p.seconds}"
        labels     = local.cycle_labels
        rate_limit = 300
        command    = "phasectl status --project ${var.project}"
    } },
    # The relay says at each run what is blocked. Data that is late by minutes is nobody's
    # concern: what counts is that it has been said for an hour without a pause.
    { cycle-blocked = {
      kind      = "log_metric"
      title     = "A hand-over has been blocked for an hour: its data is not ready"
      severity  = "CRITICAL"
      filter    = "${local.of_function["reconcile"]} AND jsonPayload.event=\"cycle_blocked\""
      labels    = local.cycle_labels
      more_than = 0
      within    = local.relay_window
      duration  = local.hour
      command   = "phasectl status --project ${var.project}"
    } },
    { for f in [for f in keys(local.functions) : f if f != "health"] : "check-unknown/${f}" => {
      kind       = "log_match"
      title      = "A readiness check, or the schedule, has no answer"
      severity   = "ERROR"
      filter     = "${local.of_function[f]} AND jsonPayload.event=\"check_unknown\""
      labels     = merge(local.cycle_labels, { check = "EXTRACT(jsonPayload.check)" })
      rate_limit = local.hour
      command    = "phasectl checks verify --project ${var.project}"
    } },
    # The relay says at each run what is past its deadline, and what it leaves; an incident
    # a cycle, open for as long as it is said.
    { for page, c in {
      cycle-overdue   = { event = "cycle_held", more = "", severity = "CRITICAL", labels = local.cycle_labels, title = "A cycle is held or past its deadline, and not handed over" }
      left-unfinished = { event = "finding", more = " AND jsonPayload.by=\"relay\"", severity = "ERROR", labels = merge(local.cycle_labels, { type = "EXTRACT(jsonPayload.type)" }), title = "A period was left unfinished, and the relay looks at it no more" }
      } : page => {
      kind      = "log_metric"
      title     = c.title
      severity  = c.severity
      filter    = "${local.of_function["reconcile"]} AND jsonPayload.event=\"${c.event}\"${c.more}"
      labels    = c.labels
      more_than = 0
      within    = local.relay_window
      command   = "phasectl explain PERIOD MODE --project ${var.project}"
    } },
    # Processors' containers say it, whatever they are deployed as: the collection tells
    # whose it is.
    { lock-lost = {
      kind       = "log_match"
      title      = "A run lost its lock while it was at work"
      severity   = "ERROR"
      filter     = "jsonPayload.event=\"lock_lost\" AND jsonPayload.collection=\"${var.prefix}processing_locks\""
      labels     = { lock = "EXTRACT(jsonPayload.lock)" }
      rate_limit = 300
      command    = "phasectl locks list --project ${var.project}"
    } },
    { write-fenced = {
      kind       = "log_match"
      title      = "A run that had lost its lock tried to write, and was kept from it"
      severity   = "WARNING"
      filter     = "jsonPayload.event=\"write_fenced\" AND jsonPayload.collection=\"${var.prefix}processing_locks\""
      labels     = { lock = "EXTRACT(jsonPayload.lock)" }
      rate_limit = 300
      command    = "phasectl locks list --project ${var.project}"
    } },
    # Said at each relay, of a lock that was not renewed for three of its leases.
    { lock-leaked = {
      kind      = "log_metric"
      title     = "A lock was not given back, and nobody has asked for it since"
      severity  = "WARNING"
      filter    = "${local.of_function["reconcile"]} AND jsonPayload.event=\"finding\" AND jsonPayload.type=\"leaked_lock\" AND jsonPayload.by=\"locks\""
      labels    = { lock = "EXTRACT(jsonPayload.lock)" }
      more_than = 0
      within    = local.relay_window
      command   = "phasectl locks list --project ${var.project}"
    } },
    # The nightly reconciliation says once what it found; what it has repaired is not left.
    { for page, r in {
      findings-left     = { field = "findings", severity = "ERROR", title = "Reconciliation has found what it could not repair" }
      reconcile-unknown = { field = "unknown", severity = "ERROR", title = "Reconciliation could not read or judge everything" }
      tracking-accuracy = { field = "not_shown", severity = "CRITICAL", title = "Tracking accuracy is below 100 %: tables have rows and are not shown as complete" }
      } : page => {
      kind       = "log_match"
      title      = r.title
      severity   = r.severity
      filter     = "${local.of_function["reconcile"]} AND jsonPayload.event=\"report\" AND jsonPayload.${r.field}>=1"
      labels     = { transition = "EXTRACT(jsonPayload.transition)" }
      rate_limit = local.hour
      command    = "phasectl reconcile --days 7 --verbose --project ${var.project}"
    } },
    # Said of what is removed too: two runs have written one table.
    { for level, d in { found = { at_least = 1, severity = "WARNING" }, many = { at_least = 21, severity = "CRITICAL" } } : "duplicates/${level}" => {
      kind                    = "log_match"
      title                   = d.at_least == 1 ? "A table has duplicate rows" : "A table has more than ${d.at_least - 1} duplicate rows"
      severity                = d.severity
      filter                  = "${local.of_function["sweep"]} AND jsonPayload.event=\"duplicates_found\" AND jsonPayload.duplicates>=${d.at_least}"
      labels                  = { table = "EXTRACT(jsonPayload.table)", period = "EXTRACT(jsonPayload.period)" }
      rate_limit              = local.hour
      command                 = "phasectl sweep --days 7 --project ${var.project}"
    } },
    # Said at each look, so an incident a check is open for as long as it lasts. What could
    # not be read once may be read the next time.
    { for page, h in {
      health-failing = { state = "failing", severity = "ERROR", within = 2 * local.hour, duration = 0, title = "A health check is failing" }
      health-unknown = { state = "unknown", severity = "WARNING", within = 1.5 * local.hour, duration = 2 * local.hour, title = "A health check has had no answer for hours" }
      } : page => {
      kind      = "log_metric"
      title     = h.title
      severity  = h.severity
      filter    = "${local.of_function["health"]} AND jsonPayload.event=\"finding\" AND jsonPayload.by=\"health\" AND jsonPayload.state=\"${h.state}\""
      labels    = { check = "EXTRACT(jsonPayload.check)" }
      more_than = 0
      within    = h.within
      duration  = h.duration
      command   = "phasectl health --verbose --project ${var.project}"
    } },
    # What could not be told in Slack is told by mail at least that it could not.
    { for f in keys(local.functions) : "notify-failed/${f}" => {
      kind       = "log_match"
      title      = "People could not be told in Slack"
      severity   = "ERROR"
      filter     = "${local.of_function[f]} AND jsonPayload.event=\"notify_failed\""
      labels     = {}
      rate_limit = local.hour
      command    = "gcloud logging read '${local.of_function[f]} AND jsonPayload.event=\"notify_failed\"' --freshness=1h --project=${var.project}"
    } },
    { for f in keys(local.functions) : "message-quarantined/${f}" => {
      kind       = "log_match"
      title      = "A message to ${f} can never be processed and was put aside"
      severity   = "WARNING"
      filter     = "${local.of_function[f]} AND jsonPayload.event=\"completion_quarantined\""
      labels     = { field = "EXTRACT(jsonPayload.field)" }
      rate_limit = local.hour
      command    = "phasectl quarantine list --project ${var.project}"
    } },
    { for name, s in local.schedules : "heartbeat-absent/${name}" => {
      kind     = "promql"
      title    = "Job ${name} has not succeeded for more than ${local.heartbeat_window[name]} s"
      severity = "CRITICAL"
      # A count of zero and no data at all are the same silence.
      query = "(sum(increase(logging_googleapis_com:user_${local.metric_prefix}_${s.function}_heartbeat{monitored_resource=\"cloud_run_revision\",scheduled_job=\"${s.job}\"}[${local.heartbeat_window[name]}s])) or vector(0)) < 0.5"
      # Time for a job that has just been deployed to come round.
      duration = min(local.interval[name], local.hour) + 300
      command  = "gcloud scheduler jobs describe ${google_cloud_scheduler_job.this[name].name} --location=${var.region} --project=${var.project}"
    } if local.interval[name] != null },
    { for name, s in local.schedules : "scheduler-failed/${name}" => {
      kind       = "log_match"
      title      = "The scheduler could not send job ${name}"
      severity   = "ERROR"
      filter     = "resource.type=\"cloud_scheduler_job\" AND resource.labels.job_id=\"${google_cloud_scheduler_job.this[name].name}\" AND severity>=ERROR"
      labels     = {}
      rate_limit = local.hour
      command    = "gcloud scheduler jobs describe ${google_cloud_scheduler_job.this[name].name} --location=${var.region} --project=${var.project}"
    } },
  ) : key => merge({ filter = null, query = null, labels = {}, duration = 0, rate_limit = null, more_than = null, within = null }, a) }
}

resource "google_monitoring_alert_policy" "this" {
  for_each = local.alerts

  display_name          = "${var.prefix}phasegate ${each.key}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = local.channels

  conditions {
    display_name = each.value.title

    dynamic "condition_matched_log" {
      for_each = each.value.kind == "log_match" ? [each.value] : []
      content {
        filter           = condition_matched_log.value.filter
        label_extractors = condition_matched_log.value.labels
      }
    }

    dynamic "condition_prometheus_query_language" {
      for_each = each.value.kind == "log_match" ? [] : [each.value]
      content {
        query = condition_prometheus_query_language.value.kind == "promql" ? condition_prometheus_query_language.value.query : join("", [
          "sum ${length(each.value.labels) > 0 ? "by (${join(", ", keys(each.value.labels))}) " : ""}(increase(logging_googleapis_com:user_${google_logging_metric.errors[each.key].name}{monitored_resource=\"cloud_run_revision\"}",
          "[${condition_prometheus_query_language.value.within}s])) > ${condition_prometheus_query_language.value.more_than}",
        ])
        duration                  = "${condition_prometheus_query_language.value.duration}s"
        evaluation_interval       = "60s"
        disable_metric_validation = true # a metric exists from its first value on; alerts exist before
      }
    }
  }

  alert_strategy {
    auto_close = "${24 * local.hour}s"

    dynamic "notification_rate_limit" {
      for_each = each.value.kind == "log_match" ? [each.value.rate_limit] : []
      content {
        period = "${notification_rate_limit.value}s"
      }
    }
  }

  documentation {
    subject   = "${var.prefix}phasegate: ${each.value.title}"
    mime_type = "text/markdown"
    content   = <<-EOT
      ${each.value.title}.

      Look first:

          ${each.value.command}

      What it means and what to do: ${var.runbooks}/${split("/", each.key)[0]}.md
    EOT

    links {
      display_name = "Runbook"
      url          = "${var.runbooks}/${split("/", each.key)[0]}.md"
    }
  }

  depends_on = [google_logging_metric.event, google_logging_metric.errors]
}
