# A service behind phasectl guard, and the subscription that feeds it. README.md has the images.

locals {
  pipeline = yamldecode(file(var.pipeline_file))
  phases   = { for p in local.pipeline.phases : p.name => p }
  guard    = try(local.phases[var.phase].guard, null)
  name     = try(local.phases[var.phase].service, local.guard.scope, var.phase)
  path     = try(local.guard.paths[0], "/")
  topics   = toset([for t in local.pipeline.transitions : t.downstream.topic if t.downstream.phase == var.phase])

  state = {
    GOOGLE_CLOUD_PROJECT = var.project
    PHASEGATE_STORE      = "firestore:${var.database}"
    PHASEGATE_PREFIX     = var.prefix
    PIPELINE_FILE        = var.image_pipeline_file
  }

  # The ingress container comes first. It is the service itself, which guard starts, or guard alone.
  containers = concat(
    var.mode == "sidecar" ? [{
      name = "guard", image = var.guard_image, port = 8080, probe = 8080, env = local.state, after = ["service"]
      args = ["--phase=${var.phase}", "--upstream=http://127.0.0.1:8081"]
    }] : [],
    [{
      name  = "service", image = var.image, args = var.args, after = []
      port  = var.mode == "sidecar" ? null : 8080
      probe = var.mode == "sidecar" ? 8081 : 8080
      env   = { for name, value in local.state : name => value if var.mode == "parent" }
    }],
  )
}

data "google_project" "this" {}

resource "google_service_account" "service" {
  account_id   = trimsuffix(substr("${var.prefix}runs-${local.name}", 0, 30), "-")
  display_name = "Runs ${local.name}"
}

resource "google_service_account" "push" {
  account_id   = trimsuffix(substr("${var.prefix}push-${local.name}", 0, 30), "-")
  display_name = "Delivers triggers to ${local.name}"
}

# Receipts and locks.
resource "google_project_iam_member" "state" {
  project = var.project
  role    = "roles/datastore.user"
  member  = google_service_account.service.member

  condition {
    title      = "The database of the state alone"
    expression = "resource.name == \"projects/${var.project}/databases/${var.database}\""
  }
}

resource "google_cloud_run_v2_service" "this" {
  name     = "${var.prefix}${local.name}"
  location = var.region
  ingress  = "INGRESS_TRAFFIC_INTERNAL_ONLY" # deliveries of this project's Pub/Sub are internal

  template {
    service_account                  = google_service_account.service.email
    max_instance_request_concurrency = var.concurrency
    timeout                          = "3600s" # the limit of guard ends a run before

    scaling {
      max_instance_count = var.max_instances
    }

    dynamic "containers" {
      for_each = local.containers
      content {
        name       = containers.value.name
        image      = containers.value.image
        args       = containers.value.args
        depends_on = containers.value.after

        dynamic "ports" {
          for_each = containers.value.port == null ? [] : [containers.value.port]
          content {
            container_port = ports.value
          }
        }

        dynamic "env" {
          for_each = containers.value.env
          content {
            name  = env.key
            value = env.value
          }
        }

        # A run that outlasts its request goes on, and guard renews its claim: both need CPU.
        resources {
          cpu_idle = false
        }

        startup_probe {
          period_seconds    = 10
          timeout_seconds   = 5
          failure_threshold = 24

          tcp_socket {
            port = containers.value.probe
          }
        }
      }
    }
  }

  lifecycle {
    precondition {
      condition     = local.guard != null
      error_message = "phase: \"${var.phase}\" has no key guard in ${var.pipeline_file}: write guard: {} there."
    }
    precondition {
      condition     = var.mode == "parent" || var.guard_image != ""
      error_message = "guard_image: is required with mode = \"sidecar\"."
    }
    precondition {
      condition     = var.mode == "parent" || try(local.guard.on_lost, "run") != "kill"
      error_message = "mode: guard can end only a service that it has started: on_lost: kill of phase ${var.phase} needs mode = \"parent\"."
    }
  }

  depends_on = [google_project_iam_member.state] # a delivery that comes before is refused
}

resource "google_cloud_run_v2_service_iam_member" "push" {
  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.this.name
  role     = "roles/run.invoker"
  member   = google_service_account.push.member
}
