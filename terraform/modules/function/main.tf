# One function: its archive, its identity, the identity that delivers to it, and the
# right of that identity, and of no other, to call it.

locals {
  full_name = "${var.prefix}phasegate-${var.name}"
}

resource "google_service_account" "runs" {
  account_id   = "${var.prefix}pg-${var.name}"
  display_name = "Phasegate: function ${var.name}"
}

resource "google_service_account" "push" {
  account_id   = "${var.prefix}pg-push-${var.name}"
  display_name = "Phasegate: delivers to function ${var.name}"
}

resource "google_storage_bucket_object" "archive" {
  # The hash in the name is what makes another source another deployment.
  name   = basename(var.archive)
  bucket = var.bucket
  source = var.archive
  # Earlier archives stay: rolling back is deploying one of them.
  deletion_policy = "ABANDON"

  lifecycle {
    precondition {
      condition     = fileexists(var.archive)
      error_message = "${var.archive} is missing: the archives were not packed, or from another state of the checkout. Pack them with: make package"
    }
  }
}

resource "google_cloudfunctions2_function" "this" {
  name        = local.full_name
  location    = var.region
  description = var.description

  build_config {
    runtime         = "go126"
    entry_point     = var.name
    service_account = var.build_agent

    source {
      storage_source {
        bucket = google_storage_bucket_object.archive.bucket
        object = google_storage_bucket_object.archive.name
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.runs.email
    available_memory                 = var.memory
    available_cpu                    = var.cpu
    max_instance_request_concurrency = var.concurrency
    timeout_seconds                  = var.timeout
    max_instance_count               = var.max_instances
    environment_variables            = var.environment

    dynamic "secret_environment_variables" {
      for_each = var.secrets

      content {
        project_id = var.project
        key        = secret_environment_variables.key
        secret     = secret_environment_variables.value.secret
        # Its number: with "latest", instances that run would keep the one before.
        version = secret_environment_variables.value.version
      }
    }

    # Pub/Sub of this project is internal. People are not, and are asked who they are.
    ingress_settings               = length(var.viewers) == 0 ? "ALLOW_INTERNAL_ONLY" : "ALLOW_ALL"
    all_traffic_on_latest_revision = true
  }

  depends_on = [google_secret_manager_secret_iam_member.reads] # else it does not start
}

resource "google_secret_manager_secret_iam_member" "reads" {
  for_each = var.secrets

  project   = var.project
  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runs.member
}

# Who looks calls the service; gcloud run services proxy asks for its address before, which needs
# run.services.get on it: https://cloud.google.com/sdk/gcloud/reference/run/services/proxy
resource "google_cloud_run_v2_service_iam_member" "view" {
  for_each = { for p in setproduct(var.viewers, ["roles/run.invoker", "roles/run.viewer"]) : "${p[0]} ${p[1]}" => { member = p[0], role = p[1] } }

  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.this.service_config[0].service
  role     = each.value.role
  member   = each.value.member

  lifecycle {
    replace_triggered_by = [google_cloudfunctions2_function.this.id]
  }
}

resource "google_cloud_run_v2_service_iam_member" "push" {
  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.this.service_config[0].service
  role     = "roles/run.invoker"
  member   = google_service_account.push.member

  lifecycle {
    # A function that is replaced comes back without its bindings. The id alone: an
    # update leaves it as it is, and must not take the binding away while it builds.
    replace_triggered_by = [google_cloudfunctions2_function.this.id]
  }
}
