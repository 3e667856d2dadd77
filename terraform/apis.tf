# Addresses of the platform's agents contain the project's number. Without depends_on, which
# would make the number unknown in a plan: README.md has the API enabled beforehand.
data "google_project" "this" {
  project_id = var.project
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
