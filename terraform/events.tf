# Every event that the functions log, in BigQuery: table run_googleapis_com_stdout, made
# by the first entry that arrives, one partition a day.
resource "google_bigquery_dataset" "events" {
  dataset_id                      = "${replace(var.prefix, "-", "_")}phasegate"
  description                     = "Events of Phasegate, written by a log sink"
  location                        = local.bigquery_location
  delete_contents_on_destroy      = var.prefix != "" # of another environment
  default_partition_expiration_ms = 400 * 24 * 3600 * 1000

  depends_on = [google_project_service.required]
}

# One sink: all sinks of a project write as the same identity, and of two bindings of one
# identity to one role the end of either would be the end of both.
# https://cloud.google.com/logging/docs/api/reference/rest/v2/sinks/create
resource "google_logging_project_sink" "events" {
  name                   = "${var.prefix}phasegate-events"
  destination            = "bigquery.googleapis.com/${google_bigquery_dataset.events.id}"
  filter                 = "${local.of_functions} AND jsonPayload.event:*"
  unique_writer_identity = true

  bigquery_options {
    use_partitioned_tables = true
  }
}

resource "google_bigquery_dataset_iam_member" "sink_writes" {
  dataset_id = google_bigquery_dataset.events.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_logging_project_sink.events.writer_identity
}

# Counts for alerts and the dashboard. A project may have some 500 such metrics, so what differs
# by function, event, cycle or check is a label of one; the function is a label of the resource.
locals {
  # As PromQL spells it: hyphens are underscores there.
  metric_prefix = replace("${var.prefix}phasegate", "-", "_")

  counted = ["batch_published", "batch_resumed", "check_unknown", "completion_quarantined", "completion_recorded", "cycle_blocked", "cycle_on_hold", "cycle_overdue", "finding", "heartbeat"]

  log_metrics = merge({
    event = {
      filter = "${local.of_functions} AND jsonPayload.event=(${join(" OR ", [for e in local.counted : "\"${e}\""])})"
      labels = { event = "event", scheduled_job = "job" }
    }
    cycle = {
      filter = "${local.of_function["reconcile"]} AND jsonPayload.event=(\"cycle_blocked\" OR \"cycle_overdue\")"
      labels = { for l in ["event", "transition", "period", "mode"] : l => l }
    }
    finding = {
      filter = "${local.of_functions} AND jsonPayload.event=\"finding\""
      labels = merge({ for l in ["type", "check", "state", "lock", "transition", "period", "mode"] : l => l }, { found_by = "by" })
    }
    function_errors = {
      filter = "${local.revision}=${local.services_of.all} AND logName=(${local.logs.stdout} OR ${local.logs.stderr} OR ${local.logs["varlog/system"]}) AND severity>=ERROR"
      labels = {}
    }
    },
    # Processors are not ours and log where they will; requests are counted by the platform.
    { for name in length(local.services) > 0 ? ["processor_errors"] : [] : name => {
      filter = "${local.of_processors} AND logName!=${local.logs.requests} AND severity>=ERROR"
      labels = {}
    } },
  )
}

resource "google_logging_metric" "this" {
  for_each = local.log_metrics

  name   = "${local.metric_prefix}_${each.key}"
  filter = each.value.filter

  metric_descriptor {
    metric_kind  = "DELTA"
    value_type   = "INT64"
    unit         = "1"
    display_name = "${var.prefix}phasegate ${each.key}"

    dynamic "labels" {
      for_each = each.value.labels
      content {
        key        = labels.key
        value_type = "STRING"
      }
    }
  }

  label_extractors = { for label, field in each.value.labels : label => "EXTRACT(jsonPayload.${field})" }

  depends_on = [google_project_service.required]
}
