# The state. Documents are found by id alone, so no field needs an index. Large maps would exceed
# the limit of index entries a document.

locals {
  # Maps, lists and stored messages, by collection.
  wide = {
    phase_periods       = ["batches", "closed", "handed", "holds", "periods", "runs", "shards", "unexpected"]
    phase_runs          = ["runs", "unexpected"]
    phase_triggers      = ["claim_messages", "expects", "messages", "parts", "readiness", "runs", "verdict"]
    phase_trigger_parts = ["messages"]
    quarantine          = ["envelope", "head"]
    function_status     = ["attempts", "codes", "drill", "heartbeats", "report", "schedules", "since", "states"]
    lock_tokens         = ["nonces"]
    processor_runs      = ["history"]
    sweeps              = ["after", "before"]
  }
  # A shadow has the first four again. A deployment in shadow has one itself, for smoke
  # tests.
  shadows = { for p in setproduct(["shadow_", "shadow_shadow_"], ["phase_periods", "phase_runs", "phase_triggers", "phase_trigger_parts"]) : "${p[0]}${p[1]}" => p[1] }
  # Documents in which nothing is open expire 400 days after their last change, those of a shadow
  # 30 days after it, and receipts of phasectl guard 62 days after their last claim.
  expiring = concat(["audit", "lock_tokens", "notifications", "open_receipts", "phase_periods", "phase_runs", "phase_trigger_parts", "phase_triggers", "processor_runs", "quarantine", "receipts",
  "sweeps", "shadow_audit", "shadow_quarantine"], keys(local.shadows))
  unindexed = merge(local.wide, { for collection, of in local.shadows : collection => local.wide[of] })
}

resource "google_firestore_database" "books" {
  count = var.database_location == "" ? 0 : 1

  name                              = var.database
  location_id                       = var.database_location
  type                              = "FIRESTORE_NATIVE"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = var.database_delete_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"

  depends_on = [google_project_service.required]
}

# A database has at most one daily and one weekly schedule of backups, so of two environments in one
# database one has it. https://cloud.google.com/firestore/docs/backups
resource "google_firestore_backup_schedule" "books" {
  count = var.backup_weeks == 0 ? 0 : 1

  database  = var.database
  retention = "${var.backup_weeks * 7 * 24 * 3600}s"

  weekly_recurrence {
    day = "SUNDAY"
  }

  depends_on = [google_firestore_database.books, google_project_service.required]
}

resource "google_firestore_field" "unindexed" {
  for_each = { for f in flatten([
    for collection, fields in local.unindexed : [for field in fields : { collection = collection, field = field }]
  ]) : "${f.collection}.${f.field}" => f }

  database   = var.database
  collection = "${var.prefix}${each.value.collection}"
  field      = each.value.field

  index_config {}

  depends_on = [google_firestore_database.books, google_project_service.required]
}

resource "google_firestore_field" "expires" {
  for_each = toset(local.expiring)

  database   = var.database
  collection = "${var.prefix}${each.key}"
  field      = "expires_at"

  ttl_config {}
  index_config {} # times of one day would all be written to one end of it

  depends_on = [google_firestore_database.books, google_project_service.required]
}
