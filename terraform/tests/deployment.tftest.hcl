# Invariants of a deployment, with a mocked provider: nothing is reached, no project is
# needed. scripts/verify/terraform asserts the same and more without the provider.

mock_provider "google" {
  override_during = plan

  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
  mock_data "google_bigquery_dataset" {
    defaults = { location = "europe-west3" }
  }
  # What the provider checks the form of.
  mock_resource "google_service_account" {
    defaults = {
      id     = "projects/nba-test-project/serviceAccounts/mocked@nba-test-project.iam.gserviceaccount.com"
      email  = "mocked@nba-test-project.iam.gserviceaccount.com"
      member = "serviceAccount:mocked@nba-test-project.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_pubsub_topic" {
    defaults = { id = "projects/nba-test-project/topics/mocked" }
  }
  mock_resource "google_pubsub_subscription" {
    defaults = { id = "projects/nba-test-project/subscriptions/mocked" }
  }
  mock_resource "google_bigquery_dataset" {
    defaults = { id = "projects/nba-test-project/datasets/phasegate" }
  }
  mock_resource "google_logging_project_sink" {
    defaults = { writer_identity = "serviceAccount:mocked@gcp-sa-logging.iam.gserviceaccount.com" }
  }
  mock_resource "google_monitoring_notification_channel" {
    defaults = { id = "projects/nba-test-project/notificationChannels/1" }
  }
  mock_resource "google_project_iam_custom_role" {
    defaults = { id = "projects/nba-test-project/roles/phasegate_sees_jobs" }
  }
  mock_resource "google_secret_manager_secret" {
    defaults = { id = "projects/nba-test-project/secrets/mocked" }
  }
}

variables {
  project     = "nba-test-project"
  region      = "us-central1"
  email       = "oncall@example.com"
  source_hash = "0123456789ab"
  archives    = "./tests/archives"
}

run "every_subscription_has_a_dead_letter_that_stays" {
  command = plan

  assert {
    condition     = keys(google_pubsub_subscription.push) == keys(google_pubsub_subscription.dead_letter) && length(google_pubsub_subscription.push) >= 3
    error_message = "A subscription has no dead letter."
  }

  assert {
    condition = alltrue([for s in concat(values(google_pubsub_subscription.push), values(google_pubsub_subscription.dead_letter)) :
    s.expiration_policy[0].ttl == ""])
    error_message = "A subscription expires."
  }

  assert {
    condition = alltrue([for key, s in google_pubsub_subscription.push :
      s.ack_deadline_seconds == 600 && s.dead_letter_policy[0].max_delivery_attempts == 100 &&
    s.retry_policy[0].minimum_backoff == (local.subscriptions[key].function == "transition" ? "10s" : "300s") && s.retry_policy[0].maximum_backoff == "600s"])
    error_message = "A subscription does not retry as it should."
  }

  assert {
    condition     = alltrue([for s in google_pubsub_subscription.push : length(s.push_config[0].oidc_token) == 1])
    error_message = "A subscription delivers without an identity."
  }

  assert {
    condition = keys(google_pubsub_topic_iam_member.agent_dead_letters) == keys(google_pubsub_subscription.push) && alltrue(
      [for m in google_pubsub_topic_iam_member.agent_dead_letters : m.role == "roles/pubsub.publisher" && m.member == local.pubsub_agent]
    )
    error_message = "Pub/Sub's agent may not publish to a dead letter."
  }

  assert {
    condition = keys(google_pubsub_subscription_iam_member.agent_acknowledges) == keys(google_pubsub_subscription.push) && alltrue(
      [for m in google_pubsub_subscription_iam_member.agent_acknowledges : m.role == "roles/pubsub.subscriber" && m.member == local.pubsub_agent]
    )
    error_message = "Pub/Sub's agent may not take a message out of a subscription."
  }
}

run "every_alert_reaches_somebody_with_a_runbook" {
  command = plan

  assert {
    condition     = length(google_monitoring_alert_policy.this) >= 20 && alltrue([for p in google_monitoring_alert_policy.this : length(p.notification_channels) >= 1])
    error_message = "An alert has no channel."
  }

  assert {
    condition = alltrue([for key, p in google_monitoring_alert_policy.this :
    p.documentation[0].links[0].url == "${var.runbooks}/${split("/", key)[0]}.md"])
    error_message = "An alert has no runbook."
  }

  assert {
    condition     = alltrue([for key in keys(google_monitoring_alert_policy.this) : fileexists("../docs/how-to/runbooks/${split("/", key)[0]}.md")])
    error_message = "A runbook is missing."
  }

  assert {
    condition = alltrue([for p in google_monitoring_alert_policy.this :
    length(flatten([for c in p.conditions : c.condition_matched_log])) == length(p.alert_strategy[0].notification_rate_limit)])
    error_message = "A log match has no rate limit, or something else has one."
  }

  assert {
    condition     = alltrue([for s in google_pubsub_subscription.dead_letter : strcontains(google_monitoring_alert_policy.this["dead-letters"].conditions[0].condition_prometheus_query_language[0].query, s.name)])
    error_message = "A dead letter is not watched."
  }
}

run "critical_alerts_do_not_go_to_slack_alone" {
  command = plan

  variables {
    slack_channel = "#pipeline-alerts"
    slack_token   = "xoxb-not-a-token"
  }

  assert {
    condition     = alltrue([for p in google_monitoring_alert_policy.this : length(p.notification_channels) == 1 && contains(p.notification_channels, google_monitoring_notification_channel.email.id) if p.severity == "CRITICAL"])
    error_message = "A critical alert goes elsewhere."
  }

  assert {
    condition     = alltrue([for key, p in google_monitoring_alert_policy.this : contains(p.notification_channels, google_monitoring_notification_channel.slack["slack"].id) if p.severity != "CRITICAL"])
    error_message = "Another alert does not go to Slack."
  }
}

run "rights_are_those_listed" {
  command = plan

  assert {
    condition     = alltrue([for m in google_project_iam_member.books : m.role == "roles/datastore.user"]) && keys(google_project_iam_member.builds) == ["roles/artifactregistry.writer", "roles/logging.logWriter"]
    error_message = "A role of the project is not listed."
  }

  assert {
    condition     = alltrue([for m in google_project_iam_member.books : strcontains(m.condition[0].expression, "/databases/(default)")])
    error_message = "The books' right is not limited to their database."
  }

  assert {
    condition     = length(google_pubsub_topic_iam_member.publishes) > 0 && alltrue([for m in google_pubsub_topic_iam_member.publishes : m.role == "roles/pubsub.publisher"])
    error_message = "A function may do more with a topic than publish."
  }

  assert {
    condition = !anytrue([for m in concat(
      values(google_pubsub_topic_iam_member.publishes), values(google_pubsub_topic_iam_member.agent_dead_letters),
      values(google_pubsub_subscription_iam_member.agent_acknowledges), values(google_service_account_iam_member.agent_signs),
      [google_bigquery_dataset_iam_member.sink_writes], values(google_project_iam_member.books), values(google_project_iam_member.builds),
    ) : contains(["allUsers", "allAuthenticatedUsers"], m.member)])
    error_message = "Something is for everybody."
  }
}

run "datasets_are_where_the_tables_are" {
  command = plan

  assert {
    condition     = alltrue([for d in [google_bigquery_dataset.events, google_bigquery_dataset.staging, google_bigquery_dataset.sweep_archive] : d.location == "europe-west3"])
    error_message = "A dataset of ours is elsewhere than the tables."
  }
}

run "a_shadow_publishes_nothing" {
  command = plan

  variables {
    shadow = true
  }

  assert {
    condition     = length(google_pubsub_topic_iam_member.publishes) == 0
    error_message = "A function in shadow may publish."
  }
}

run "schedules_are_in_local_time_or_all_day_in_utc" {
  command = plan

  assert {
    condition = length(google_cloud_scheduler_job.this) == length(local.pipeline.schedules) && alltrue(
      [for name, j in google_cloud_scheduler_job.this : j.time_zone == (contains(["relay", "health"], name) ? "Etc/UTC" : "America/New_York")]
    )
    error_message = "A job is missing, or in another time zone."
  }

  assert {
    condition     = alltrue([for name, j in google_cloud_scheduler_job.this : jsondecode(base64decode(j.pubsub_target[0].data)).job == local.schedules[name].job])
    error_message = "A job's message is not its job."
  }
}

run "two_environments_in_one_project" {
  command = plan

  variables {
    prefix = "dev-"
  }

  assert {
    condition = alltrue([for r in concat(
      values(google_pubsub_topic.disposable), values(google_pubsub_topic.own), values(google_pubsub_topic.dead_letter),
      values(google_pubsub_subscription.push), values(google_pubsub_subscription.dead_letter), values(google_cloud_scheduler_job.this),
    ) : startswith(r.name, "dev-")])
    error_message = "A name does not begin with the prefix."
  }

  assert {
    condition     = alltrue([for f in google_firestore_field.unindexed : startswith(f.collection, "dev-")])
    error_message = "A collection does not begin with the prefix."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    prefix          = "dev"
    source_hash     = "unset"
    existing_topics = ["nba-phase9"]
    log_level       = "error"
    claim           = "11m"
  }

  expect_failures = [var.prefix, var.source_hash, var.existing_topics, var.log_level, var.claim]
}
