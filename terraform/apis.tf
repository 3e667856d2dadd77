# The agent addresses below are made from the project's number.
data "google_project" "this" {
  project_id = var.project

  depends_on = [google_project_service.required["cloudresourcemanager"]]
}

resource "google_project_service" "required" {
  for_each = toset([
    "artifactregistry", "bigquery", "cloudbuild", "cloudfunctions", "cloudresourcemanager", "cloudscheduler", "firestore",
    "iam", "logging", "monitoring", "pubsub", "run", "secretmanager", "storage",
  ])

  service = "${each.key}.googleapis.com"
  # Others in the project may use them.
  disable_on_destroy = false
}
