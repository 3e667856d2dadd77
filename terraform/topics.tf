locals {
  topic_ids = merge(
    { for name, t in google_pubsub_topic.pipeline : name => t.id },
    { for name, t in google_pubsub_topic.own : name => t.id },
  )
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

# Topics at the ends of the pipeline's transitions: others publish there and read there.
resource "google_pubsub_topic" "pipeline" {
  for_each = local.pipeline_topics

  name = "${var.prefix}${each.key}"

  lifecycle {
    prevent_destroy = true # the subscriptions of others hang on them
    # What an adopted topic came with is its owner's.
    ignore_changes = [labels, kms_key_name, message_retention_duration, message_storage_policy, schema_settings, ingestion_data_source_settings]
  }

  depends_on = [google_project_service.required]
}

import {
  for_each = var.existing_topics
  to       = google_pubsub_topic.pipeline[each.key]
  id       = "projects/${var.project}/topics/${var.prefix}${each.key}"
}

resource "google_pubsub_topic" "own" {
  for_each = local.own_topics

  name = "${var.prefix}${each.key}"

  depends_on = [google_project_service.required]
}

resource "google_pubsub_topic" "dead_letter" {
  for_each = local.subscriptions

  name = "${var.prefix}${each.value.topic}-dead-letter"

  depends_on = [google_project_service.required]
}
