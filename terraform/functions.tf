locals {
  # One row a function: a folder of functions/. The memory is measured under the function's own
  # concurrency: docs/explanation/performance.md, "Memory of an instance". go_memory makes Go's garbage
  # collector work harder before the platform ends the instance.
  functions = {
    transition = {
      description   = "Records completions and hands complete periods over"
      memory        = "256M"
      go_memory     = "190MiB"
      cpu           = "1"
      concurrency   = local.wide_pipeline ? 250 : 80
      timeout       = 180 # the handler ends by itself after 120
      max_instances = 5
    }
    reconcile = {
      description   = "Finishes what was left unfinished"
      memory        = "512M"
      go_memory     = "400MiB"
      cpu           = "1"
      concurrency   = 4
      timeout       = 360 # the handler ends by itself after 300
      max_instances = 2
    }
    sweep = {
      description   = "Finds duplicate rows and removes them, so that it can be undone"
      memory        = "512M"
      go_memory     = "400MiB"
      cpu           = "1"
      concurrency   = 4
      timeout       = 360 # the handler ends by itself after 300
      max_instances = 2
    }
    health = {
      description   = "Looks every hour whether everything is as it should be"
      memory        = "512M"
      go_memory     = "400MiB"
      cpu           = "1"
      concurrency   = 4
      timeout       = 90 # the handler ends by itself after 60
      max_instances = 2
    }
  }

  # Those that hand periods over, and ask the readiness checks before it.
  hands_over = toset(["transition", "reconcile"])

  archives = coalesce(var.archives, "${path.module}/../build/functions")

  # Two environments in one project look at the same tables, and the locks of either keep the
  # other from nothing: one of them alone writes.
  writes_tables = coalesce(var.writes_tables, var.prefix == "")

  # Every variable that the functions read, but PIPELINE_FILE: their archives hold it. An empty
  # one is set for no function, and unset for phasectl: a shell may still have it of another
  # environment, or of an emulator.
  settings = {
    GOOGLE_CLOUD_PROJECT = var.project
    PHASEGATE_STORE      = var.database == "(default)" ? "firestore" : "firestore:${var.database}"
    PHASEGATE_PREFIX     = var.prefix
    PHASEGATE_SHADOW     = var.shadow ? "true" : "false"
    PHASEGATE_TABLES     = local.writes_tables ? "write" : "read"
    PHASEGATE_CLAIM      = var.claim
    LOG_LEVEL            = var.log_level
    SLACK_CHANNEL        = var.slack_channel
    PHASEGATE_PAGE       = var.page

    FIRESTORE_EMULATOR_HOST = ""
    PUBSUB_EMULATOR_HOST    = ""
    BIGQUERY_EMULATOR_HOST  = ""
  }
  environment = { for name, value in local.settings : name => value if value != "" }

  # What a function may publish to: what it hands over, jobs for the sweep, and the dead letters of its own
  # topics, for messages that are too large for a document. In shadow, nothing.
  publishes = { for p in concat(
    [for p in setproduct(local.hands_over, local.downstream_topics) : { function = p[0], topic = p[1], dead_letter = null }],
    [for key, s in local.subscriptions : { function = s.function, topic = s.topic, dead_letter = key } if !s.shadow],
    [for t in ["phasegate-sweep"] : { function = "reconcile", topic = t, dead_letter = null } if contains(local.own_topics, t)],
  ) : "${p.function} ${p.topic}${p.dead_letter == null ? "" : "-dead-letter"}" => p if !var.shadow }
}

module "function" {
  source   = "./modules/function"
  for_each = local.functions

  project     = var.project
  region      = var.region
  prefix      = var.prefix
  name        = each.key
  description = each.value.description

  archive     = "${local.archives}/${each.key}-${var.source_hash}.zip"
  bucket      = google_storage_bucket.archives.name
  build_agent = google_service_account.build.id

  memory        = each.value.memory
  cpu           = each.value.cpu
  concurrency   = each.value.concurrency
  timeout       = each.value.timeout
  max_instances = each.value.max_instances
  environment   = merge(local.environment, { GOMEMLIMIT = each.value.go_memory })
  viewers       = each.key == "health" ? var.viewers : []
  secrets       = { for s in local.slack : "SLACK_BOT_TOKEN" => { secret = google_secret_manager_secret.slack[s].secret_id, version = google_secret_manager_secret_version.slack[s].version } }

  depends_on = [
    google_project_service.required, google_project_iam_member.builds, google_project_iam_member.build_reads_sources,
    google_storage_bucket_iam_member.build_reads_archives,
  ]
}

resource "google_storage_bucket" "archives" {
  name     = "${var.project}-${var.prefix}phasegate-functions"
  location = var.region

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # any checkout makes its archives again, byte for byte

  depends_on = [google_project_service.required]
}

# Builds run as an identity that can do nothing else.
resource "google_service_account" "build" {
  account_id   = "${var.prefix}pg-build"
  display_name = "Phasegate: builds the functions"

  depends_on = [google_project_service.required]
}

# What a build needs: it writes its log and its image, and reads the source.
# https://cloud.google.com/functions/docs/securing/build-custom-sa
resource "google_project_iam_member" "builds" {
  for_each = toset(["roles/logging.logWriter", "roles/artifactregistry.writer"])

  project = var.project
  role    = each.key
  member  = google_service_account.build.member
}

resource "google_storage_bucket_iam_member" "build_reads_archives" {
  bucket = google_storage_bucket.archives.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.build.member
}

# The platform copies the archive into a bucket of its own, which it makes with the first
# function, and the build reads that copy:
# https://github.com/hashicorp/terraform-provider-google/issues/20571
resource "google_project_iam_member" "build_reads_sources" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.build.member

  condition {
    title      = "The platform's copies of the archives alone"
    expression = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${data.google_project.this.number}-${var.region}\")"
  }
}

resource "google_project_iam_member" "books" {
  for_each = local.functions

  project = var.project
  role    = "roles/datastore.user"
  member  = module.function[each.key].member

  condition {
    title      = "The database of the state alone"
    expression = "resource.name == \"projects/${var.project}/databases/${var.database}\""
  }
}

resource "google_pubsub_topic_iam_member" "publishes" {
  for_each = local.publishes

  topic  = each.value.dead_letter == null ? local.topic_ids[each.value.topic] : google_pubsub_topic.dead_letter[each.value.dead_letter].id
  role   = "roles/pubsub.publisher"
  member = module.function[each.value.function].member
}

# The checks are queries of the functions, about the datasets that the definition names
# and no others; reconciliation, the sweep and health look at the tables of all phases.
resource "google_project_iam_member" "asks" {
  for_each = local.functions

  project = var.project
  role    = "roles/bigquery.jobUser"
  member  = module.function[each.key].member
}

resource "google_bigquery_dataset_iam_member" "reads" {
  for_each = merge(
    { for p in setproduct(local.hands_over, local.read_datasets) : "${p[0]} ${p[1]}" => { function = p[0], dataset = p[1] } },
    { for p in setproduct(["reconcile", "sweep", "health"], local.table_datasets) : "${p[0]} ${p[1]}" => { function = p[0], dataset = p[1] } },
    { for d in local.read_datasets : "health ${d}" => { function = "health", dataset = d } },
    { for d in local.health_datasets : "health ${d}" => { function = "health", dataset = d } },
  )

  dataset_id = each.value.dataset
  role       = "roles/bigquery.dataViewer"
  member     = module.function[each.value.function].member
}

# Who takes a lock may have to wait for the write of the run before it, another identity's job.
# No predefined role for jobs has only this: jobUser shows an identity its own jobs alone.
# https://cloud.google.com/bigquery/docs/jobs-overview#required_permissions
resource "google_project_iam_custom_role" "sees_jobs" {
  role_id     = "${replace(var.prefix, "-", "_")}phasegate_sees_jobs"
  title       = "${var.prefix}phasegate: sees BigQuery jobs"
  description = "Shows whether a job of any identity has ended"
  permissions = ["bigquery.jobs.get"]

  depends_on = [google_project_service.required]
}

resource "google_project_iam_member" "sees_jobs" {
  for_each = merge(
    { for f in ["reconcile", "sweep"] : f => module.function[f].member },
    { for p in var.processors : p => "serviceAccount:${p}" },
  )

  project = var.project
  role    = google_project_iam_custom_role.sees_jobs.id
  member  = each.value
}

# What a sweep has removed, a table each. They go by themselves after 30 days.
resource "google_bigquery_dataset" "sweep_archive" {
  dataset_id                  = "${replace(var.prefix, "-", "_")}phasegate_sweep_archive"
  description                 = "Rows that sweeps have removed, with those that stayed"
  location                    = local.bigquery_location
  delete_contents_on_destroy  = var.prefix != "" # of another environment
  default_table_expiration_ms = 30 * 24 * 3600 * 1000

  depends_on = [google_project_service.required]
}

# The sweep writes where the definition says that it may, and its archive. In shadow, and
# where another environment writes the tables, it writes nothing.
resource "google_bigquery_dataset_iam_member" "sweeps" {
  for_each = !var.shadow && local.writes_tables ? merge(
    { for d in local.swept_datasets : d => d },
    { archive = google_bigquery_dataset.sweep_archive.dataset_id },
  ) : {}

  dataset_id = each.value
  role       = "roles/bigquery.dataEditor"
  member     = module.function["sweep"].member
}

# How many dead letters there are is known without pulling them.
resource "google_project_iam_member" "counts" {
  project = var.project
  role    = "roles/monitoring.viewer"
  member  = module.function["health"].member
}

# Cloud Monitoring has no time series of an empty subscription: whether it exists, Pub/Sub knows.
resource "google_pubsub_subscription_iam_member" "sees_dead_letters" {
  for_each = local.subscriptions

  subscription = google_pubsub_subscription.dead_letter[each.key].id
  role         = "roles/pubsub.viewer"
  member       = module.function["health"].member
}

# Which revisions run and where traffic goes, of the services behind the phases too.
resource "google_project_iam_member" "sees" {
  project = var.project
  role    = "roles/run.viewer"
  member  = module.function["health"].member
}
