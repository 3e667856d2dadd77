# Every event that the functions log, in BigQuery: table run_googleapis_com_stdout, made
# by the first entry that arrives, one partition a day.
resource "google_bigquery_dataset" "events" {
  dataset_id                      = "${replace(var.prefix, "-", "_")}phasegate"
  description                     = "Events of Phasegate, written by a log sink"
  location                        = var.bigquery_location
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

# Counts for alerts and the dashboard, one metric a function and event.
locals {
  # As PromQL spells it: hyphens are underscores there.
  metric_prefix = replace("${var.prefix}phasegate", "-", "_")

  counted = toset([
    "completion_recorded", "completion_quarantined", "batch_published", "batch_resumed", "cycle_blocked", "cycle_held", "check_unknown", "finding",
    "heartbeat",
  ])
  events = { for p in setproduct(keys(local.functions), local.counted) : "${p[0]}_${p[1]}" => { function = p[0], event = p[1] } }
}

resource "google_logging_metric" "event" {
  for_each = local.events

  name   = "${local.metric_prefix}_${each.key}"
  filter = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${module.function[each.value.function].name}\" AND jsonPayload.event=\"${each.value.event}\""

  metric_descriptor {
    metric_kind  = "DELTA"
    value_type   = "INT64"
    unit         = "1"
    display_name = "${var.prefix}phasegate ${each.value.function}: ${each.value.event}"

    dynamic "labels" {
      for_each = each.value.event == "heartbeat" ? ["scheduled_job"] : []
      content {
        key        = labels.value
        value_type = "STRING"
      }
    }
  }

  label_extractors = each.value.event == "heartbeat" ? { scheduled_job = "EXTRACT(jsonPayload.job)" } : {}

  depends_on = [google_project_service.required]
}

resource "google_logging_metric" "errors" {
  for_each = { for key, a in local.alerts : key => a if a.kind == "log_metric" }

  name   = "${local.metric_prefix}_${replace(each.key, "/[-\\/]/", "_")}"
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

  label_extractors = each.value.labels

  depends_on = [google_project_service.required]
}
