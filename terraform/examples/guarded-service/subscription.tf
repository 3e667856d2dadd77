# Pub/Sub delivers again after 600 s at most, and counts each answer 429 as an attempt. So a run of
# an hour uses 11 attempts with this retry policy. Fewer than 20 would dead-letter a message during
# its run. Pub/Sub would not retry a failure of that run.
resource "google_pubsub_subscription" "push" {
  for_each = local.topics

  name  = "${var.prefix}${each.key}-${local.name}"
  topic = "projects/${var.project}/topics/${var.prefix}${each.key}"

  ack_deadline_seconds       = 600
  message_retention_duration = "604800s"

  push_config {
    push_endpoint = "${google_cloud_run_v2_service.this.uri}${local.path}"

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = google_cloud_run_v2_service.this.uri
    }
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letter[each.key].id
    max_delivery_attempts = 100
  }

  expiration_policy {
    ttl = ""
  }

  depends_on = [google_cloud_run_v2_service_iam_member.push]
}

resource "google_pubsub_topic" "dead_letter" {
  for_each = local.topics

  name = "${var.prefix}${each.key}-${local.name}-dead-letter"
}

resource "google_pubsub_subscription" "dead_letter" {
  for_each = local.topics

  name  = google_pubsub_topic.dead_letter[each.key].name
  topic = google_pubsub_topic.dead_letter[each.key].id

  ack_deadline_seconds       = 600
  message_retention_duration = "2678400s"

  expiration_policy {
    ttl = ""
  }
}

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

# Without these two roles of Pub/Sub's own agent, messages are retried for ever.
resource "google_pubsub_topic_iam_member" "agent_dead_letters" {
  for_each = local.topics

  topic  = google_pubsub_topic.dead_letter[each.key].id
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "agent_acknowledges" {
  for_each = local.topics

  subscription = google_pubsub_subscription.push[each.key].id
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

# The agent signs the pushes in the name of the delivering identity.
resource "google_service_account_iam_member" "agent_signs" {
  service_account_id = google_service_account.push.id
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_agent
}

output "uri" {
  description = "Address of the service."
  value       = google_cloud_run_v2_service.this.uri
}
