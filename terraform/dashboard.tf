locals {
  charts = concat(
    [for title, event in {
      "Completions"                        = "completion_recorded"
      "Hand-overs published"               = "batch_published"
      "Hand-overs taken over from another" = "batch_resumed"
      "Cycles seen blocked"                = "cycle_blocked"
      "Cycles seen overdue"                = "cycle_overdue"
      "Cycles seen on hold"                = "cycle_on_hold"
      "Checks without an answer"           = "check_unknown"
      "Periods left unfinished"            = "finding"
      "Messages quarantined"               = "completion_quarantined"
      "Jobs that ended well"               = "heartbeat"
      } : { title                          = title, query = "sum by (service_name) (increase(${local.metric.event},event=\"${event}\"}[300s]))"
    }],
    [for title, metric in {
      "Oldest message waiting (s)" = "oldest_unacked_message_age"
      "Messages waiting"           = "num_undelivered_messages"
      } : { title                  = title, query = "max by (subscription_id) (pubsub_googleapis_com:subscription_${metric}{monitored_resource=\"pubsub_subscription\",subscription_id=~\"${join("|", [for s in google_pubsub_subscription.push : s.name])}\"})"
    }],
    [{ title = "Dead letters", query = "max by (subscription_id) (pubsub_googleapis_com:subscription_num_undelivered_messages{monitored_resource=\"pubsub_subscription\",subscription_id=~\"${join("|", [for s in google_pubsub_subscription.dead_letter : s.name])}\"})"
    }],
    [{ title = "Requests that failed (5xx)", query = "sum by (service_name) (increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=~\"${join("|", concat([for f in module.function : f.name], values(local.services)))}\",response_code_class=\"5xx\"}[300s]))"
    }],
  )
}

resource "google_monitoring_dashboard" "this" {
  dashboard_json = jsonencode({
    displayName = "${var.prefix}phasegate ${local.pipeline.name}"
    mosaicLayout = {
      columns = 48
      tiles = [for i, c in local.charts : {
        xPos   = i % 2 * 24
        yPos   = floor(i / 2) * 16
        width  = 24
        height = 16
        widget = {
          title = c.title
          xyChart = {
            dataSets = [{
              plotType        = "LINE"
              timeSeriesQuery = { prometheusQuery = c.query }
            }]
          }
        }
      }]
    }
  })

  depends_on = [google_project_service.required]
}
