locals {
  topic_ids = merge(
    { for name, t in google_pubsub_topic.pipeline : name => t.id },
    { for name, t in google_pubsub_topic.disposable : name => t.id },
    { for name, t in data.google_pubsub_topic.existing : name => t.id },
    { for name, t in google_pubsub_topic.own : name => t.id },
  )
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"

  # Of the topics at the ends of the transitions, those that are made here.
  made_topics = setsubtract(local.pipeline_topics, var.existing_topics)
}

# Topics that exist already are looked up and never changed: they are not ours to destroy, and a
# transition that leaves the pipeline file leaves them as they are.
data "google_pubsub_topic" "existing" {
  for_each = var.existing_topics

  name = "${var.prefix}${each.key}"
}

# Topics at the ends of the pipeline's transitions: others publish there and read there.
resource "google_pubsub_topic" "pipeline" {
  for_each = var.prefix == "" ? local.made_topics : []

  name = each.key

  lifecycle {
    prevent_destroy = true # the subscriptions of others hang on them; README.md says how they are given up
  }

  depends_on = [google_project_service.required]
}

# Those of another environment go with it: prevent_destroy takes no expression.
resource "google_pubsub_topic" "disposable" {
  for_each = var.prefix == "" ? [] : local.made_topics

  name = "${var.prefix}${each.key}"

  depends_on = [google_project_service.required]
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
