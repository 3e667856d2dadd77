output "functions" {
  description = "Name and address of each function."
  value       = { for name, f in module.function : name => { name = f.name, uri = f.uri } }
}

output "subscriptions" {
  description = "Push subscription and dead letter of everything that feeds a function."
  value = { for key, s in google_pubsub_subscription.push : key => {
    subscription = s.name
    dead_letter  = google_pubsub_subscription.dead_letter[key].name
  } }
}

output "source_hash" {
  description = "Hash of the source that was deployed."
  value       = var.source_hash
}

output "events" {
  description = "Dataset whose table run_googleapis_com_stdout holds every event."
  value       = google_bigquery_dataset.events.id
}

output "dashboard" {
  description = "The dashboard."
  value       = google_monitoring_dashboard.this.id
}

output "exports" {
  description = "The functions' environment for a shell, so that phasectl works on the same books: eval \"$(terraform output -raw exports)\"."
  value       = join("\n", [for name, value in local.settings : value == "" ? "unset ${name}" : "export ${name}='${value}'"])
}
