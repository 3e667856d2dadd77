resource "google_cloud_scheduler_job" "this" {
  for_each = local.schedules

  name        = "${var.prefix}phasegate-${each.key}"
  description = "Job ${each.value.job} of function ${each.value.function}"
  region      = var.region
  schedule    = each.value.cron
  # The relay and health run all day: in UTC no hour is skipped and none comes twice. The pipeline
  # file's parser reads their times in the same zone, and refuses other jobs at times that the clock of
  # the pipeline's zone skips or repeats.
  # https://cloud.google.com/scheduler/docs/configuring/cron-job-schedules
  time_zone = contains(["relay", "health"], each.value.job) && startswith(split(" ", each.value.cron)[1], "*") ? "Etc/UTC" : local.pipeline.time_zone

  # No attempt_deadline: on a Pub/Sub target it is a difference in every plan.
  pubsub_target {
    topic_name = local.topic_ids["phasegate-${each.value.function}"]
    data       = base64encode(jsonencode({ job = each.value.job }))
  }

  retry_config {
    retry_count = 3
  }

  lifecycle {
    precondition {
      condition     = local.interval[each.key] != null || !contains(["relay", "health"], each.value.job) # health watches the others
      error_message = "schedules: ${each.key}: cron ${each.value.cron}: the time between two runs is not known. Use a form such as \"*/5 * * * *\", \"0 */6 * * *\" or \"30 6 * * 1\"."
    }

    # Health tells when another job is late. That health is late, only Monitoring can tell.
    precondition {
      condition     = each.value.job != "health" || try(local.interval[each.key] <= local.longest_watched, true)
      error_message = "schedules: ${each.key}: cron ${each.value.cron}: Monitoring cannot watch a job that runs once a day or less: let health run every few hours, such as \"0 */6 * * *\"."
    }
  }
}
