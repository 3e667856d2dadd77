locals {
  charts = concat(
    [for title, event in {
      "Completions"                        = "completion_recorded"
      "Hand-overs published"               = "batch_published"
      "Hand-overs taken over from another" = "batch_resumed"
      "Cycles seen blocked"                = "cycle_blocked"
      "Cycles seen held or overdue"        = "cycle_held"
      "Checks without an answer"           = "check_unknown"
      "Periods left unfinished"            = "finding"
      "Messages quarantined"               = "completion_quarantined"
      "Jobs that ended well"               = "heartbeat"
      } : { title = title, queries = { for f in keys(local.functions) :
        f => "sum(increase(logging_googleapis_com:user_${google_logging_metric.event["${f}_${event}"].name}{monitored_resource=\"cloud_run_revision\"}[300s]))"
    } }],
    [for title, metric in {
      "Oldest message waiting (s)" = "oldest_unacked_message_age"
      "Messages waiting"           = "num_undelivered_messages"
      } : { title = title, queries = { for key, s in local.subscriptions :
        key => "max(pubsub_googleapis_com:subscription_${metric}{monitored_resource=\"pubsub_subscription\",subscription_id=\"${google_pubsub_subscription.push[key].name}\"})"
    } }],
    [{ title = "Dead letters", queries = { for key, s in local.subscriptions :
      key => "max(pubsub_googleapis_com:subscription_num_undelivered_messages{monitored_resource=\"pubsub_subscription\",subscription_id=\"${google_pubsub_subscription.dead_letter[key].name}\"})"
    } }],
    [{ title = "Requests that failed (5xx)", queries = { for key, w in local.watched :
      key => "sum(increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=\"${w.service}\",response_code_class=\"5xx\"}[300s]))"
    } }],
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
            dataSets = [for name, query in c.queries : {
              plotType        = "LINE"
              legendTemplate  = name
              timeSeriesQuery = { prometheusQuery = query }
            }]
          }
        }
      }]
    }
  })

  depends_on = [google_project_service.required]
}
