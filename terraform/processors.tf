# What processors need that run under our locks (phasectl run, or the runner in Go). Their
# services, and their rights on their own tables, are deployed elsewhere.

# BigQuery reads and writes in one location: what is written on its way to the tables, and what is
# taken from them, has to be where they are.
# https://cloud.google.com/bigquery/docs/locations#specify_locations
data "google_bigquery_dataset" "tables" {
  for_each = setunion(local.table_datasets, local.read_datasets)

  dataset_id = each.key
}

locals {
  locations         = distinct([for d in data.google_bigquery_dataset.tables : d.location])
  bigquery_location = local.locations[0]
}

# What is loaded before it is merged into a table. Tables go by themselves after a day.
resource "google_bigquery_dataset" "staging" {
  dataset_id                  = "${replace(var.prefix, "-", "_")}phasegate_staging"
  description                 = "Rows of processors, on their way into their tables"
  location                    = local.bigquery_location
  delete_contents_on_destroy  = var.prefix != "" # of another environment
  default_table_expiration_ms = 24 * 3600 * 1000

  lifecycle {
    precondition {
      condition     = length(local.locations) == 1
      error_message = "phases, checks: datasets of one pipeline have to be in one location, and ${join(", ", [for name, d in data.google_bigquery_dataset.tables : "${name} is in ${d.location}"])}: move those that are elsewhere."
    }
  }

  depends_on = [google_project_service.required]
}

locals {
  # What processors report to, and whom they ask to look after what they find in a table.
  report_topics = toset(concat([for t in local.pipeline.transitions : t.upstream.topic], [for t in local.own_topics : t if t == "phasegate-sweep"]))
}

resource "google_bigquery_dataset_iam_member" "stages" {
  for_each = var.processors

  dataset_id = google_bigquery_dataset.staging.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = "serviceAccount:${each.value}"
}

# Writes, and the jobs that keep earlier runs from writing.
resource "google_project_iam_member" "processor_jobs" {
  for_each = var.processors

  project = var.project
  role    = "roles/bigquery.jobUser"
  member  = "serviceAccount:${each.value}"
}

# Locks, and what runs have done.
resource "google_project_iam_member" "processor_books" {
  for_each = var.processors

  project = var.project
  role    = "roles/datastore.user"
  member  = "serviceAccount:${each.value}"

  condition {
    title      = "The database of the state alone"
    expression = "resource.name == \"projects/${var.project}/databases/${var.database}\""
  }
}

resource "google_pubsub_topic_iam_member" "processor_reports" {
  for_each = { for p in setproduct(var.processors, local.report_topics) : "${p[0]} ${p[1]}" => { member = p[0], topic = p[1] } }

  topic  = local.topic_ids[each.value.topic]
  role   = "roles/pubsub.publisher"
  member = "serviceAccount:${each.value.member}"
}
