# Pub/Sub triggers the functions through push subscriptions of our own. The one that an
# event trigger makes can have no dead letter, and retries only if asked to.
resource "google_pubsub_subscription" "push" {
  for_each = local.subscriptions

  name  = "${var.prefix}${each.value.topic}-${each.value.function}"
  topic = local.topic_ids[each.value.topic]

  ack_deadline_seconds       = 600
  message_retention_duration = "604800s"

  push_config {
    push_endpoint = "${module.function[each.value.function].uri}/${each.value.query}"

    oidc_token {
      service_account_email = module.function[each.value.function].push_email
      audience              = module.function[each.value.function].uri
    }
  }

  retry_policy {
    # The schedule repeats a relay sooner than this: a retry of a job would be one run too many.
    minimum_backoff = each.value.function == "transition" ? "10s" : "300s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letter[each.key].id
    max_delivery_attempts = 100
  }

  expiration_policy {
    ttl = "" # never: a quiet off-season is no reason to be forgotten
  }
}

# Keeps dead letters for 31 days, the most that Pub/Sub allows.
resource "google_pubsub_subscription" "dead_letter" {
  for_each = local.subscriptions

  name  = google_pubsub_topic.dead_letter[each.key].name
  topic = google_pubsub_topic.dead_letter[each.key].id

  ack_deadline_seconds       = 600
  message_retention_duration = "2678400s"

  expiration_policy {
    ttl = ""
  }
}

# Without these two roles of Pub/Sub's own agent, messages are retried for ever instead of
# dead-lettered.
resource "google_pubsub_topic_iam_member" "agent_dead_letters" {
  for_each = local.subscriptions

  topic  = google_pubsub_topic.dead_letter[each.key].id
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "agent_acknowledges" {
  for_each = local.subscriptions

  subscription = google_pubsub_subscription.push[each.key].id
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

# The agent signs the pushes in the name of the delivering identity.
resource "google_service_account_iam_member" "agent_signs" {
  for_each = local.functions

  service_account_id = module.function[each.key].push_id
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_agent

  # The platform makes the agent with the first topic at the latest.
  depends_on = [google_pubsub_topic.dead_letter]
}
